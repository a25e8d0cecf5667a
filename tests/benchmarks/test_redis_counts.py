"""What a thousand jobs cost a Redis-protocol server, in counts that are the same on every machine.

The limits are what the engine did when they were written. A script more for each batch is a round trip more on
somebody's hot path; a command more inside a script is a microsecond or two of the server for every job there is. Find
out why before raising one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from benchmarks.driver import Marks
from benchmarks.own.tasks import app

from benchmarks import asking, work
from ropeway.client.client import Client
from ropeway.client.submitter import call
from ropeway.domain.ids import SEED_BYTES, job_id
from ropeway.domain.job import DEFAULT_TENANT, NewJob
from ropeway.domain.lease import Append, Assignment, Commit, LeaseRequest, Outcome
from ropeway.domain.worker import WorkerCard
from ropeway.engines.redis import RedisEngine
from ropeway.runtime.options import WorkerOptions
from ropeway.runtime.worker import Worker
from servers import Server

JOBS = 1_000
BATCH = 100
QUEUE, SESSION = "default", "session"
DONE = Outcome("succeeded", output="1")


class Counts:
    """What the server was asked for since `clear`: scripts, and the commands that they ran."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def clear(self) -> None:
        assert self._server.ask("CONFIG RESETSTAT") == "+OK"

    def read(self) -> tuple[int, int, asking.Calls]:
        """How many scripts, how many commands in them, and all of them by name."""
        calls = asking.calls(self._server.url)
        wire = (
            "config|resetstat",
            "info",
            "ping",
            "eval",
            "evalsha",
            "ssubscribe",
            "sunsubscribe",
            "bzpopmin",
            "hello",
        )
        inside = sum(count for name, (count, _) in calls.items() if name not in wire and not name.startswith("client"))
        return asking.scripts(calls), inside, calls


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that nobody else talks to: what it counts is ours."""
    server = Server("--appendonly", "no").start()
    yield server
    server.delete()


@pytest.fixture
async def engine(server: Server) -> AsyncIterator[RedisEngine]:
    """An engine whose first job is behind it: the scripts are loaded, the queue and its counts are there."""
    assert server.ask("FLUSHALL") == "+OK"
    engine = RedisEngine(f"{server.url}?durability=memory")
    await engine.open()
    await engine.announce(WorkerCard(SESSION, "worker", (QUEUE,), ttl_ms=3_600_000))
    await engine.submit(jobs(1, "first"))
    first = await lease(engine, 1)
    await engine.append([Append(held.lease, held.next_seq, (("output.delta", '"x"'),)) for held in first])
    await finish(engine, first)
    await engine.get(DEFAULT_TENANT, [held.lease.job_id for held in first])
    yield engine
    await engine.shut()


@pytest.fixture
def counts(server: Server, engine: RedisEngine) -> Counts:
    counts = Counts(server)
    counts.clear()
    return counts


async def test_a_bulk_submit_is_a_script_for_each_128_jobs(engine: RedisEngine, counts: Counts) -> None:
    """1,000 jobs through the client: two calls of 500, each cut into scripts that stop the server for 2 ms at most."""
    client = Client(engine)

    handles = [handle async for handle in client.submit_many(call(app.tasks["noop"], n) for n in range(JOBS))]

    assert len(handles) == JOBS
    assert_at_most(counts, scripts=8, commands=2_150)


async def test_submits_of_one_tick_share_scripts(engine: RedisEngine, counts: Counts) -> None:
    """A thousand callers, each with a job of its own: they go 64 at a time, after the first who comes."""
    client = Client(engine)

    await asyncio.gather(*(client.submit(app.tasks["noop"], n) for n in range(JOBS)))

    assert_at_most(counts, scripts=17, commands=2_300)


async def test_a_submit_that_is_awaited_alone_is_one_script(engine: RedisEngine, counts: Counts) -> None:
    """One round trip, no more: its order, its claim and its counts are in it."""
    for job in jobs(50, "alone"):
        await engine.submit([job])

    scripts, _, calls = counts.read()
    assert (scripts, calls["evalsha"][0]) == (50, 50), calls


async def test_lease_and_commit_are_a_script_a_batch_each(engine: RedisEngine, counts: Counts) -> None:
    """1,000 jobs in batches of 100: twenty round trips."""
    await engine.submit(jobs(JOBS, "drain"))
    counts.clear()

    for _ in range(JOBS // BATCH):
        await finish(engine, await lease(engine, BATCH))

    assert_at_most(counts, scripts=20, commands=4_350)


async def test_events_of_many_attempts_are_appended_together(engine: RedisEngine, counts: Counts) -> None:
    """Ten rounds in which each of 100 running jobs has a token to tell: 1,000 appends, ten scripts."""
    await engine.submit(jobs(BATCH, "stream"))
    leased = await lease(engine, BATCH)
    counts.clear()

    for n in range(JOBS // BATCH):
        await engine.append([Append(held.lease, held.next_seq + n, (("output.delta", '"x"'),)) for held in leased])

    assert_at_most(counts, scripts=10, commands=3_050)


async def test_a_worker_needs_few_scripts_for_many_jobs(engine: RedisEngine, counts: Counts) -> None:
    """How many jobs go together depends on the machine; that it is ten at the least does not."""
    await engine.submit(jobs(JOBS, "worker"))
    marks = Marks(JOBS)
    work.count_with(marks)
    counts.clear()

    worker = Worker(app, engine, WorkerOptions(concurrency=BATCH))
    running = asyncio.create_task(worker.run())
    await asyncio.to_thread(marks.done.wait, 60)
    await worker.stop()
    await running

    assert sum(stats.succeeded for stats in await engine.stats()) == JOBS + 1
    assert_at_most(counts, scripts=JOBS // 10, commands=5 * JOBS)


async def test_reading_a_thousand_jobs_is_a_script_for_each_128(engine: RedisEngine, counts: Counts) -> None:
    """And nothing is written."""
    many = jobs(JOBS, "read")
    await engine.submit(many)
    counts.clear()

    found = await engine.get(DEFAULT_TENANT, [job.id for job in many])

    assert [job.id for job in found if job is not None] == [job.id for job in many]
    assert_at_most(counts, scripts=8, commands=1_050)


def assert_at_most(counts: Counts, *, scripts: int, commands: int) -> None:
    """Both at once, so that a failure shows the whole picture."""
    ran, inside, calls = counts.read()
    assert ran <= scripts and inside <= commands, f"{ran} scripts of at most {scripts}, {inside} of {commands}: {calls}"


def jobs(count: int, name: str) -> list[NewJob]:
    seeds = (f"{name}{n}".encode().rjust(SEED_BYTES, b"\0")[-SEED_BYTES:] for n in range(count))
    return [NewJob(job_id(0, seed), DEFAULT_TENANT, QUEUE, "noop", '{"n":1}') for seed in seeds]


async def lease(engine: RedisEngine, count: int) -> list[Assignment]:
    leased = await engine.lease(LeaseRequest(SESSION, "worker", (QUEUE,), count))
    assert len(leased) == count
    return leased


async def finish(engine: RedisEngine, leased: Sequence[Assignment]) -> None:
    await engine.commit([Commit(held.lease, DONE) for held in leased])

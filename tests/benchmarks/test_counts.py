"""What a thousand jobs cost SQLite, in counts that are the same on every machine: these catch what a clock cannot.

The limits are what the engine did when they were written. One that is passed is a round trip or a sync more on
somebody's hot path: find out why before raising it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from benchmarks.counting import VFS_NAME, Counts, counted
from benchmarks.driver import Marks
from benchmarks.own.tasks import app

from benchmarks import work
from ropeway.client.client import Client
from ropeway.client.submitter import call
from ropeway.domain.ids import SEED_BYTES, job_id
from ropeway.domain.job import DEFAULT_TENANT, NewJob
from ropeway.domain.lease import Append, Assignment, Commit, LeaseRequest, Outcome
from ropeway.domain.worker import WorkerCard
from ropeway.engines.sqlite import SqliteEngine, SqliteOptions
from ropeway.runtime.options import WorkerOptions
from ropeway.runtime.worker import Worker

JOBS = 1_000
BATCH = 100
QUEUE, SESSION = "default", "session"
DONE = Outcome("succeeded", output="1")


@pytest.fixture
def counts() -> Iterator[Counts]:
    with counted() as counts:
        yield counts


@pytest.fixture
async def engine(counts: Counts, tmp_path: Path) -> AsyncIterator[SqliteEngine]:
    """An engine whose first job is behind it: queues, counts and bands have their rows."""
    engine = SqliteEngine(tmp_path / "counts.db", options=SqliteOptions(vfs=VFS_NAME))
    await engine.open()
    await engine.announce(WorkerCard(SESSION, "worker", (QUEUE,)))
    await engine.submit(jobs(1, "first"))
    await finish(engine, await lease(engine, 1))
    counts.clear()
    yield engine
    await engine.shut()


async def test_a_bulk_submit_is_one_transaction_and_one_sync_a_call(engine: SqliteEngine, counts: Counts) -> None:
    """1,000 jobs through the client: two calls of 500."""
    client = Client(engine)

    handles = [handle async for handle in client.submit_many(call(app.tasks["noop"], n) for n in range(JOBS))]

    assert len(handles) == JOBS
    assert_at_most(counts, statements=18, transactions=2, syncs=2)


async def test_submits_of_one_tick_share_a_transaction(engine: SqliteEngine, counts: Counts) -> None:
    """A thousand callers, each with a job of its own: group commit makes one of them."""
    client = Client(engine)

    await asyncio.gather(*(client.submit(app.tasks["noop"], n) for n in range(JOBS)))

    assert_at_most(counts, statements=9, transactions=1, syncs=1)


async def test_a_submit_that_is_awaited_alone_is_synced_alone(engine: SqliteEngine, counts: Counts) -> None:
    """A 202 means that the job is on the disk: one sync each, neither more nor less."""
    for job in jobs(50, "alone"):
        await engine.submit([job])

    assert counts.syncs == 50
    assert_at_most(counts, statements=450, transactions=50, syncs=50)


async def test_lease_and_commit_cost_a_transaction_a_batch(engine: SqliteEngine, counts: Counts) -> None:
    """1,000 jobs in batches of 100. Only the commits are synced: a lost lease is a job that runs again."""
    await engine.submit(jobs(JOBS, "drain"))
    counts.clear()

    for _ in range(JOBS // BATCH):
        await finish(engine, await lease(engine, BATCH))

    assert_at_most(counts, statements=150, transactions=20, syncs=10)


async def test_events_of_many_attempts_are_appended_together(engine: SqliteEngine, counts: Counts) -> None:
    """Ten rounds in which each of 100 running jobs has a token to tell: 1,000 appends, ten transactions, no sync."""
    await engine.submit(jobs(BATCH, "stream"))
    leased = await lease(engine, BATCH)
    counts.clear()

    for n in range(JOBS // BATCH):
        await engine.append([Append(held.lease, held.next_seq + n, (("output.delta", '"x"'),)) for held in leased])

    assert_at_most(counts, statements=50, transactions=10, syncs=0)


async def test_a_worker_needs_few_transactions_for_many_jobs(engine: SqliteEngine, counts: Counts) -> None:
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
    assert_at_most(counts, statements=JOBS, transactions=JOBS // 10, syncs=JOBS // 10)


async def test_reading_a_thousand_jobs_is_one_statement(engine: SqliteEngine, counts: Counts) -> None:
    """And no transaction of the writer's."""
    many = jobs(JOBS, "read")
    await engine.submit(many)
    counts.clear()

    found = await engine.get(DEFAULT_TENANT, [job.id for job in many])

    assert [job.id for job in found if job is not None] == [job.id for job in many]
    assert_at_most(counts, statements=1, transactions=0, syncs=0)


def assert_at_most(counts: Counts, *, statements: int, transactions: int, syncs: int) -> None:
    """All three at once, so that a failure shows the whole picture."""
    within = counts.statements <= statements and counts.transactions <= transactions and counts.syncs <= syncs
    assert within, f"{counts}, of at most {statements}, {transactions} and {syncs}"


def jobs(count: int, name: str) -> list[NewJob]:
    seeds = (f"{name}{n}".encode().rjust(SEED_BYTES, b"\0")[-SEED_BYTES:] for n in range(count))
    return [NewJob(job_id(0, seed), DEFAULT_TENANT, QUEUE, "noop", '{"n":1}') for seed in seeds]


async def lease(engine: SqliteEngine, count: int) -> list[Assignment]:
    leased = await engine.lease(LeaseRequest(SESSION, "worker", (QUEUE,), count))
    assert len(leased) == count
    return leased


async def finish(engine: SqliteEngine, leased: Sequence[Assignment]) -> None:
    await engine.commit([Commit(held.lease, DONE) for held in leased])

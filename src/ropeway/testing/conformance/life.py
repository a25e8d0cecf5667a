"""An engine's life: open, shut, and for those whose store outlives them, open again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ropeway.domain.errors import EngineUnavailable, IdempotencyKeyReused, LeaseLost
from ropeway.domain.event import START
from ropeway.domain.job import JobOptions, JobQuery, Receipt
from ropeway.domain.lease import Append, Commit, Lease, LeaseRequest, Outcome, Renewal
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import Promotion
from ropeway.testing.bench import QUEUE, SESSION, TENANT, TTL_MS, Bench, as_, durable
from ropeway.testing.conformance.registry import durable_promise, promise

__all__: list[str] = []


@promise
async def an_engine_tells_what_it_is(bench: Bench) -> None:
    """Kind, URL, version, and a durability class that is one of three."""
    info = bench.engine.info
    assert all((info.kind, info.url, info.version))
    assert info.url.startswith(info.kind)
    assert info.durability in ("disk", "window", "memory")


@promise
async def a_shut_engine_is_unavailable(bench: Bench) -> None:
    """After `shut` every call raises EngineUnavailable, and `shut` may be called again."""
    await bench.add()
    await bench.engine.shut()
    for name, call in _calls(bench).items():
        try:
            await call()
        except EngineUnavailable:
            continue
        raise AssertionError(f"{name} answered after shut")
    await bench.engine.shut()


@durable_promise
async def jobs_outlive_their_engine(bench: Bench) -> None:
    """After a clean shut and reopen every job, its events and its counts are as they were."""
    held = await bench.start_job()
    await bench.append(held, 1, ("output.delta", '"a"'), ("progress", "1"))
    await bench.submit(bench.new(), bench.new(delay_ms=500), bench.new(tenant="b", queue="other"))
    ended = await bench.cancel((await bench.add()).id, "no")
    before = await _picture(bench)
    await bench.reopen()
    assert await _picture(bench) == before
    assert await bench.job(ended.id) == ended


@durable_promise
async def a_lease_outlives_the_engine(bench: Bench) -> None:
    """A worker whose engine was restarted goes on: its session, lease and event numbers still hold."""
    held = await bench.start_job()
    await bench.append(held, 1, ("output.delta", '"a"'))
    await bench.reopen()
    assert (await bench.engine.renew(SESSION, TTL_MS)).alive
    await bench.append(held, 2, ("output.delta", '"b"'))
    assert await bench.commit(held) is State.succeeded
    assert await bench.commit(held) is State.succeeded


@durable_promise
async def order_outlives_the_engine(bench: Bench) -> None:
    """Places, tenants' tags and virtual time are kept: the line goes on where it was."""
    await bench.engine.set_queue([QueueChange(QUEUE, weights={"b": 2.0})])
    await bench.submit(*(bench.new(f"a{n}") for n in range(4)))
    await bench.submit(*(bench.new(f"b{n}", tenant="b") for n in range(2)))
    await bench.lease(4)
    await bench.reopen()
    await bench.submit(*(bench.new(f"b{n}", tenant="b") for n in (2, 3)), bench.new("a4"))
    assert [held.job_id for held in await bench.lease(10)] == ["b2", "b3", "a2", "a3", "a4"]


@durable_promise
async def claims_and_policies_outlive_the_engine(bench: Bench) -> None:
    """Idempotency claims, queue policies, the catalogue, sessions and duties are kept."""
    job = await bench.add(idempotency_key="k", fingerprint="f")
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth=1, paused=True)])
    await bench.engine.publish([TaskCard("echo", doc="says it again")])
    assert await bench.engine.elect("upkeep", "a", 1000)
    workers = await bench.engine.workers()
    await bench.reopen()
    keyed = [bench.new(idempotency_key="k", fingerprint=text) for text in ("f", "g")]
    same, other = await bench.engine.submit(keyed)
    assert (as_(Receipt, same).job.id, type(other)) == (job.id, IdempotencyKeyReused)
    assert await bench.lease(10) == []
    assert (await bench.stats()).policy == (await bench.engine.set_queue([QueueChange(QUEUE)]))[0]
    assert await bench.engine.tasks() == [TaskCard("echo", doc="says it again")]
    assert await bench.engine.workers() == workers
    assert not await bench.engine.elect("upkeep", "b", 1000)


@durable_promise
async def times_outlive_the_engine(bench: Bench) -> None:
    """What waited for a time still does: promotion, rescue and pruning go on after a reopen."""
    delayed = await bench.add(delay_ms=500)
    held = await bench.start_job()
    ended = await bench.finish(options=JobOptions(retention_s=1), queue=QUEUE)
    await bench.reopen()
    assert await bench.engine.promote(10) == Promotion(0, delayed.run_at_ms)
    bench.clock.advance(TTL_MS)
    assert (await bench.engine.promote(10)).moved == 1
    assert await bench.engine.rescue(10) == 1
    assert await bench.engine.prune(10) == 1
    assert await bench.states(delayed.id, held.job_id, ended.id) == [State.queued, State.queued, None]


@durable_promise
async def what_was_answered_outlives_a_crash(bench: Bench) -> None:
    """After a crash all that was answered is there, and leases taken before still hold (guarantee G1)."""
    held = await bench.start_job()
    await bench.append(held, 1, ("output.delta", '"a"'))
    await bench.submit(*(bench.new() for _ in range(20)))
    before = await _picture(bench)
    bench.engine = await durable(bench.harness).crash(bench.engine)
    assert await _picture(bench) == before
    assert await bench.commit(held) is State.succeeded


@durable_promise
async def two_engines_share_a_store(bench: Bench) -> None:
    """Engines on one store see each other's writes at once, share no lease, and fence each other."""
    other = await durable(bench.harness).beside(bench.engine)
    await bench.add("job_x")
    assert (await other.get(TENANT, ["job_x"]))[0] == await bench.job("job_x")
    await other.announce(WorkerCard("s2", "s2", (QUEUE,), ttl_ms=50))
    (held,) = await other.lease(LeaseRequest("s2", "s2", (QUEUE,), 5))
    assert await bench.lease(5) == []
    bench.clock.advance(50)
    assert await bench.engine.rescue(5) == 1
    assert await other.renew("s2", 50) == Renewal(False)
    (answer,) = await other.commit([Commit(held.lease, Outcome("succeeded"))])
    as_(LeaseLost, answer)
    assert await bench.commit(await bench.lease_one()) is State.succeeded


async def _picture(bench: Bench) -> object:
    """All that readers of the store can see."""
    jobs = [job for tenant in (TENANT, "b") for job in (await bench.engine.find(JobQuery(tenant, limit=100))).jobs]
    logs = [await bench.engine.read(job.tenant, job.id, START, 100) for job in jobs]
    return jobs, logs, await bench.engine.stats(), await bench.engine.workers()


def _calls(bench: Bench) -> dict[str, Callable[[], Awaitable[object]]]:
    """A call of every method."""
    engine = bench.engine
    lease = Lease("job_001", 1, "x")
    return {
        "submit": lambda: engine.submit([bench.new()]),
        "cancel": lambda: engine.cancel(TENANT, ["job_001"], None),
        "retry": lambda: engine.retry(TENANT, [("job_001", "again")]),
        "purge": lambda: engine.purge(TENANT, ["job_001"]),
        "set_queue": lambda: engine.set_queue([QueueChange(QUEUE)]),
        "publish": lambda: engine.publish([TaskCard("a")]),
        "announce": lambda: engine.announce(WorkerCard("s", "s", (QUEUE,))),
        "lease": lambda: engine.lease(LeaseRequest(SESSION, "w", (QUEUE,), 1)),
        "renew": lambda: engine.renew(SESSION, TTL_MS),
        "append": lambda: engine.append([Append(lease, 1, (("log", "1"),))]),
        "commit": lambda: engine.commit([Commit(lease, Outcome("succeeded"))]),
        "close": lambda: engine.close(SESSION),
        "get": lambda: engine.get(TENANT, ["job_001"]),
        "find": lambda: engine.find(JobQuery(TENANT)),
        "read": lambda: engine.read(TENANT, "job_001", START, 10),
        "position": lambda: engine.position(TENANT, "job_001"),
        "stats": lambda: engine.stats(),
        "tasks": lambda: engine.tasks(),
        "workers": lambda: engine.workers(),
        "promote": lambda: engine.promote(10),
        "rescue": lambda: engine.rescue(10),
        "prune": lambda: engine.prune(10),
        "elect": lambda: engine.elect("upkeep", "a", 1000),
    }

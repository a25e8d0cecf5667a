"""Queues: policies, pausing, depth limits, and counts that are exact."""

from __future__ import annotations

from ropeway.domain.errors import QueueFull, TooManyQueued
from ropeway.domain.job import JobOptions, Receipt
from ropeway.domain.queue import DEFAULT_MAX_DEPTH, QueueChange, QueuePolicy, QueueStats
from ropeway.testing.bench import QUEUE, TENANT, Bench, as_
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []


@promise
async def a_policy_changes_field_by_field(bench: Bench) -> None:
    """What a change leaves out stays as it is; a queue that is not there is made; answers stand in place."""
    first = QueueChange(QUEUE, max_depth=9, weights={"b": 2.0})
    policies = await bench.engine.set_queue([first, QueueChange("other", paused=True)])
    assert policies == [QueuePolicy(QUEUE, 9, None, {"b": 2.0}), QueuePolicy("other", paused=True)]
    (policy,) = await bench.engine.set_queue([QueueChange(QUEUE, paused=True, max_depth_per_tenant=3)])
    assert policy == QueuePolicy(QUEUE, 9, 3, {"b": 2.0}, True)
    (policy,) = await bench.engine.set_queue([QueueChange(QUEUE, max_depth_per_tenant=None, weights={})])
    assert policy == QueuePolicy(QUEUE, 9, None, {}, True)
    assert (await bench.stats()).policy == policy


@promise
async def an_invalid_policy_changes_nothing(bench: Bench) -> None:
    """A change out of range raises ValueError, and none of its batch is made."""
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth=5)])
    changes = (
        QueueChange(QUEUE, max_depth=0),
        QueueChange(QUEUE, max_depth_per_tenant=0),
        QueueChange(QUEUE, weights={"b": 0.0}),
    )
    for change in changes:
        try:
            await bench.engine.set_queue([QueueChange(QUEUE, max_depth=7), change])
        except ValueError:
            assert (await bench.stats()).policy == QueuePolicy(QUEUE, 5)
        else:
            raise AssertionError(f"{change} was taken")


@promise
async def a_paused_queue_accepts_and_leases_none(bench: Bench) -> None:
    """A paused queue takes jobs and gives none out; running ones go on; resumed, it gives them in their order."""
    held = await bench.start_job()
    await bench.engine.set_queue([QueueChange(QUEUE, paused=True)])
    jobs = await bench.submit(bench.new(), bench.new())
    assert await bench.lease(10) == []
    await bench.commit(held)
    await bench.engine.set_queue([QueueChange(QUEUE, paused=False)])
    assert [held.job_id for held in await bench.lease(10)] == [job.id for job in jobs]


@promise
async def other_queues_are_leased_beside_a_paused_one(bench: Bench) -> None:
    """Pausing one queue stops no other of the same request."""
    await bench.engine.set_queue([QueueChange(QUEUE, paused=True)])
    await bench.submit(bench.new(), bench.new("free", queue="other"))
    assert [held.job_id for held in await bench.lease(10, queues=(QUEUE, "other"))] == ["free"]


@promise
async def a_full_queue_takes_no_more(bench: Bench) -> None:
    """`max_depth` jobs may wait, to the job, within one batch too; the next are refused with the depth."""
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth=3)])
    answers = await bench.engine.submit([bench.new(delay_ms=n * 100) for n in range(5)])
    assert [type(answer) for answer in answers] == [Receipt, Receipt, Receipt, QueueFull, QueueFull]
    refused = as_(QueueFull, answers[3])
    assert (refused.queue, refused.depth) == (QUEUE, 3)
    assert (await bench.stats()).waiting == 3


@promise
async def running_jobs_do_not_fill_a_queue(bench: Bench) -> None:
    """Depth counts who waits: a lease makes room, and a job that comes back is never refused."""
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth=1)])
    held = await bench.start_job()
    await bench.add()
    await bench.commit(held, "release")
    assert (await bench.stats()).queued == 2
    (refused,) = await bench.engine.submit([bench.new()])
    assert as_(QueueFull, refused).depth == 2


@promise
async def a_tenant_has_a_limit_of_its_own(bench: Bench) -> None:
    """`max_depth_per_tenant` bounds each tenant alone, to the job, within one batch too."""
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth_per_tenant=2)])
    tenants = ["acme", "b", "acme", "acme", "b", "b"]
    answers = await bench.engine.submit([bench.new(tenant=tenant) for tenant in tenants])
    assert [type(answer) for answer in answers] == [Receipt, Receipt, Receipt, TooManyQueued, Receipt, TooManyQueued]
    refused = as_(TooManyQueued, answers[3])
    assert (refused.queue, refused.depth) == (QUEUE, 2)
    await bench.lease_one()
    assert len(await bench.submit(bench.new())) == 1


@promise
async def a_job_may_bring_its_own_limit(bench: Bench) -> None:
    """`max_own` bounds its tenant's waiting jobs, to the job, within one batch too; the narrower limit holds.

    A repeat is answered as it was before, and who brings no limit is held by none.
    """
    jobs = [bench.new(max_own=2, idempotency_key=f"k{n}", fingerprint="f") for n in range(3)]
    answers = await bench.engine.submit([*jobs, bench.new(tenant="b", max_own=1)])
    assert [type(answer) for answer in answers] == [Receipt, Receipt, TooManyQueued, Receipt]
    assert as_(TooManyQueued, answers[2]).depth == 2
    (again,) = await bench.engine.submit([bench.new(max_own=1, idempotency_key="k0", fingerprint="f")])
    assert as_(Receipt, again).replayed
    await bench.add()
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth_per_tenant=3)])
    (refused,) = await bench.engine.submit([bench.new(max_own=9)])
    assert as_(TooManyQueued, refused).depth == 3
    await bench.lease(2)
    await bench.add(max_own=3)


@promise
async def a_tenants_limit_comes_before_the_queues(bench: Bench) -> None:
    """Who is over both limits is told of its own: the one that it can do something about."""
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth=1, max_depth_per_tenant=1)])
    await bench.add()
    answers = await bench.engine.submit([bench.new(), bench.new(tenant="b")])
    assert [type(answer) for answer in answers] == [TooManyQueued, QueueFull]


@promise
async def a_lowered_limit_drops_nobody(bench: Bench) -> None:
    """Jobs that wait above a limit lowered since stay; new ones are refused until there is room."""
    await bench.submit(bench.new(), bench.new(), bench.new())
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth=1)])
    assert (await bench.stats()).queued == 3
    await bench.lease(2)
    (refused,) = await bench.engine.submit([bench.new()])
    as_(QueueFull, refused)
    await bench.lease(1)
    await bench.add()


@promise
async def counts_are_exact(bench: Bench) -> None:
    """Every state is counted exactly, per queue, while jobs come, run, fail, come back and end."""
    created = bench.clock.now_ms()
    await bench.submit(*(bench.new(f"a{n}") for n in range(8)), bench.new("later", delay_ms=1000))
    await bench.add("elsewhere", queue="other")
    held = await bench.lease(6)
    for one, kind in zip(held, ("succeeded", "succeeded", "failed", "retry", "release"), strict=False):
        await bench.commit(one, kind)
    await bench.cancel("a7")
    expected = QueueStats(QUEUE, 3, 1, 1, 2, 1, 1, created, QueuePolicy(QUEUE))
    assert await bench.stats() == expected
    other = QueueStats("other", queued=1, oldest_queued_at_ms=created, policy=QueuePolicy("other"))
    assert await bench.engine.stats() == [expected, other]


@promise
async def counts_of_one_tenant_are_its_own(bench: Bench) -> None:
    """A tenant's stats count its jobs alone, and each queue is told with its policy."""
    await bench.submit(bench.new("a", tenant="b"), bench.new(), bench.new(tenant="b", queue="other"))
    await bench.lease_one()
    mine = await bench.stats(tenant="b")
    assert (mine.queued, mine.running, mine.waiting) == (0, 1, 0)
    assert (await bench.stats(tenant=TENANT)).queued == 1
    assert (await bench.stats("other", "b")).queued == 1
    assert (await bench.stats()).policy == QueuePolicy(QUEUE, DEFAULT_MAX_DEPTH)


@promise
async def ended_jobs_are_counted_for_ever(bench: Bench) -> None:
    """`succeeded`, `failed` and `cancelled` count since the store was made: a purge or prune takes nothing back."""
    await bench.finish("x")
    await bench.finish("y", "failed", options=JobOptions(failed_retention_s=1))
    await bench.engine.purge(TENANT, ["x"])
    bench.clock.advance(s=10)
    await bench.engine.prune(10)
    assert await bench.engine.get(TENANT, ["x", "y"]) == [None, None]
    for tenant in (None, TENANT):
        stats = await bench.stats(tenant=tenant)
        assert (stats.succeeded, stats.failed, stats.cancelled) == (1, 1, 0)


@promise
async def the_oldest_queued_job_is_told(bench: Bench) -> None:
    """`oldest_queued_at_ms` is the submit of the job that has waited longest in line, None when none does."""
    first = await bench.add()
    bench.clock.advance(100)
    second = await bench.add()
    assert (await bench.stats()).oldest_queued_at_ms == first.created_at_ms
    held = await bench.lease_one()
    assert (await bench.stats()).oldest_queued_at_ms == second.created_at_ms
    await bench.commit(held, "release")
    assert (await bench.stats()).oldest_queued_at_ms == first.created_at_ms
    await bench.engine.cancel(TENANT, [first.id, second.id], None)
    assert (await bench.stats()).oldest_queued_at_ms is None

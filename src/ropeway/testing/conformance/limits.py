"""Limits: so many at once, for all workers together; who waits for them, and what is set of them (domain.limit)."""

from __future__ import annotations

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.job import JobOptions
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import Limit, LimitPolicy, LimitState
from ropeway.domain.queue import QueueChange
from ropeway.testing.bench import QUEUE, SESSION, TENANT, TTL_MS, Bench
from ropeway.testing.conformance.registry import durable_promise, promise

__all__ = ["ONE", "RATE", "TWO", "add", "leased", "limit_of", "parked"]

ONE = Limit("gpt", max_running=1)
TWO = Limit("gpt", max_running=2)
RATE = Limit("calls", per_s=2.0, burst=4.0)


def under(*limits: Limit, **options: float) -> JobOptions:
    return JobOptions(limits=limits, **options)  # type: ignore[arg-type]


async def add(bench: Bench, *names: str, limits: tuple[Limit, ...], **fields: object) -> None:
    await bench.submit(*(bench.new(name, options=under(*limits), **fields) for name in names))


async def leased(bench: Bench, limit: int = 100, **fields: object) -> list[str]:
    return [held.job_id for held in await bench.lease(limit, **fields)]  # type: ignore[arg-type]


async def parked(bench: Bench, *job_ids: str) -> list[str | None]:
    return [(await bench.job(job_id)).parked for job_id in job_ids]


async def limit_of(bench: Bench, key: str) -> LimitState:
    """What the engine tells of a key; one of which nothing is to be told is idle."""
    return next((state for state in await bench.engine.limits() if state.key == key), LimitState(key))


@promise
async def no_more_run_at_once_than_a_limit_allows(bench: Bench) -> None:
    """Over all workers and queues; the next starts when one ends."""
    await bench.announce("s2")
    await add(bench, "a", "b", limits=(TWO,))
    await add(bench, "c", "d", limits=(TWO,), queue="other")
    first = await bench.lease(10)
    assert [held.job_id for held in first] == ["a", "b"]
    assert await leased(bench, session="s2", queues=(QUEUE, "other")) == []
    assert await parked(bench, "c", "d") == ["gpt", "gpt"]
    assert await limit_of(bench, "gpt") == LimitState("gpt", running=2, parked=2)
    await bench.commit(first[1])
    assert await leased(bench, session="s2", queues=("other",)) == ["c"]
    assert await parked(bench, "c", "d") == [None, "gpt"]


@promise
async def a_parked_job_holds_nobody_up(bench: Bench) -> None:
    """Jobs of other keys, and of none, go past those that wait for a limit."""
    await add(bench, *(f"full{n}" for n in range(5)), limits=(ONE,))
    await add(bench, "other", limits=(Limit("claude", max_running=1),))
    await bench.add("free")
    assert await leased(bench, 3) == ["full0", "other", "free"]
    assert (await bench.stats()).queued == 4


@promise
async def every_end_of_an_attempt_frees_its_place(bench: Bench) -> None:
    """Success, failure, cancel, retry, release at drain, and the death of the worker."""
    await add(bench, *(f"j{n}" for n in range(8)), limits=(ONE,))
    for kind in ("succeeded", "failed", "cancelled"):
        await bench.commit(await bench.lease_one(), kind)
    held = await bench.lease_one()
    await bench.cancel(held.job_id)
    assert await leased(bench) == []
    await bench.commit(held, "succeeded")
    held = await bench.lease_one()
    await bench.commit(held, "release")
    again = await bench.lease_one()
    assert again.job_id == held.job_id == "j4", "it comes back to its place"
    assert await bench.expire() == 1
    assert (await bench.lease_one()).job_id == "j4"
    assert (await limit_of(bench, "gpt")).running == 1


@promise
async def a_session_that_closes_frees_its_places(bench: Bench) -> None:
    """What it held is rescued, and others start."""
    await bench.announce("s2")
    await add(bench, "a", "b", limits=(ONE,))
    await bench.lease_one("s2")
    assert await leased(bench) == []
    await bench.engine.close("s2")
    assert await leased(bench) == ["a"]


@promise
async def a_place_that_becomes_free_is_hinted_at(bench: Bench) -> None:
    """Who waits for work of the queue is woken when a parked job may start, as when one is submitted."""
    await add(bench, "a", "b", limits=(ONE,))
    held = await bench.lease_one()
    assert await leased(bench) == []
    with bench.engine.listen(f"queue:{QUEUE}") as hints:
        while await hints.wait(0.2):
            assert await leased(bench) == []
        await bench.commit(held)
        assert await hints.wait(10) == {f"queue:{QUEUE}"}
    assert await leased(bench) == ["b"]


@promise
async def a_time_that_a_key_waits_for_is_hinted_at(bench: Bench) -> None:
    """Upkeep is woken when a job is parked until a time, and when those behind one that was called wait on."""
    await add(bench, "a", "b", "c", "d", limits=(ONE,))
    await add(bench, "r0", "r1", limits=(Limit("calls", per_s=1.0, burst=1.0),), queue="other")
    with bench.engine.listen("upkeep") as hints:
        assert await leased(bench, queues=("other",)) == ["r0"]
        assert await hints.wait(10) == {"upkeep"}
    held = await bench.lease_one()
    assert await leased(bench) == []
    with bench.engine.listen("upkeep") as hints:
        await bench.commit(held)
        assert await hints.wait(10) == {"upkeep"}


@promise
async def a_job_that_does_not_fit_takes_nothing(bench: Bench) -> None:
    """Of a job's limits all must have room: one that has none keeps the others' places for other jobs."""
    gpu = Limit("gpu", max_running=1)
    await add(bench, "a", limits=(ONE,))
    await add(bench, "both", limits=(gpu, ONE))
    await add(bench, "c", limits=(gpu,))
    assert await leased(bench) == ["a", "c"]
    assert await parked(bench, "both") == ["gpt"]


@promise
async def a_job_waits_for_one_limit_after_the_other(bench: Bench) -> None:
    """It starts when all of its limits have room at once."""
    gpu = Limit("gpu", max_running=1)
    await add(bench, "a", limits=(ONE,))
    await add(bench, "g", limits=(gpu,))
    await add(bench, "both", limits=(gpu, ONE))
    held = await bench.lease(3)
    assert [each.job_id for each in held] == ["a", "g"]
    await bench.commit(held[1])
    assert await leased(bench) == []
    await bench.commit(held[0])
    assert await leased(bench) == ["both"]
    assert [(await limit_of(bench, key)).running for key in ("gpt", "gpu")] == [1, 1]


@promise
async def what_an_operator_sets_counts(bench: Bench) -> None:
    """A policy counts instead of what jobs bring, for those that wait already too; without one theirs counts again."""
    await add(bench, *(f"j{n}" for n in range(6)), limits=(ONE,))
    assert await leased(bench) == ["j0"]
    (told,) = await bench.engine.set_limits({"gpt": LimitPolicy(max_running=3)})
    assert (told.policy, told.running) == (LimitPolicy(max_running=3), 1)
    assert await leased(bench) == ["j1", "j2"]
    await bench.engine.set_limits({"gpt": None})
    assert await leased(bench) == []
    await bench.engine.set_limits({"gpt": LimitPolicy()})
    assert await leased(bench) == ["j3", "j4", "j5"]


@promise
async def a_limit_that_cannot_be_is_refused(bench: Bench) -> None:
    """Out of range, or a name that no key has: nothing of the call is done."""
    for bad in (LimitPolicy(max_running=0), LimitPolicy(per_s=1.0), LimitPolicy(per_s=-1.0, burst=1.0)):
        try:
            await bench.engine.set_limits({"good": LimitPolicy(max_running=1), "bad": bad})
        except InvalidRequest:
            continue
        raise AssertionError(f"{bad} was taken")
    assert await bench.engine.limits() == []


@durable_promise
async def limits_outlive_the_engine(bench: Bench) -> None:
    """Who runs, who is parked, what is left and what was set are still known after a restart."""
    await bench.engine.set_limits({"set": LimitPolicy(max_running=7)})
    await add(bench, "a", "b", limits=(ONE,))
    await add(bench, "r", limits=(RATE,))
    held = await bench.lease(3)
    assert [each.job_id for each in held] == ["a", "r"]
    await bench.reopen()
    assert await leased(bench) == []
    assert (await limit_of(bench, "gpt")).running == 1
    assert (await limit_of(bench, "calls")).level == 3.0
    assert (await limit_of(bench, "set")).policy == LimitPolicy(max_running=7)
    await bench.commit(held[0])
    assert await leased(bench) == ["b"]


@promise
async def a_parked_job_can_be_cancelled(bench: Bench) -> None:
    """It ends at once, and those behind it go on."""
    await add(bench, "a", "b", "c", limits=(ONE,))
    held = await bench.lease_one()
    assert await leased(bench) == []
    assert (await bench.cancel("b")).state is State.cancelled
    assert await parked(bench, "b", "c") == [None, "gpt"]
    await bench.commit(held)
    assert await leased(bench) == ["c"]
    assert (await bench.stats()).queued == 0


@promise
async def a_called_job_that_goes_away_lets_others_start(bench: Bench) -> None:
    """A job that was called back and was cancelled before it started does not keep its place: others are called."""
    await add(bench, "a", "b", "c", limits=(ONE,))
    held = await bench.lease_one()
    assert await leased(bench) == []
    await bench.commit(held)
    await bench.cancel("b")
    bench.clock.advance(1_000)
    await bench.engine.promote(10)
    assert await leased(bench) == ["c"]


@promise
async def a_paused_queue_does_not_keep_a_limit(bench: Bench) -> None:
    """A job that was called back into a queue which leases none does not stand before those of other queues."""
    await add(bench, "a", limits=(ONE,))
    await add(bench, "b", limits=(ONE,), queue="asleep")
    await add(bench, "c", limits=(ONE,))
    held = await bench.lease_one()
    assert await leased(bench, queues=("asleep", QUEUE)) == []
    await bench.engine.set_queue([QueueChange("asleep", paused=True)])
    await bench.commit(held)
    bench.clock.advance(1_000)
    await bench.engine.promote(10)
    assert await leased(bench, queues=("asleep", QUEUE)) == ["c"]


@promise
async def a_parked_job_may_be_too_late(bench: Bench) -> None:
    """It fails with `queue_timeout` when its deadline passes, as one in line does."""
    await add(bench, "a", limits=(ONE,))
    await bench.add("late", options=under(ONE, queue_timeout_s=1.0))
    await add(bench, "c", limits=(ONE,))
    held = await bench.lease_one()
    assert await leased(bench) == []
    bench.clock.advance(1_000)
    await bench.engine.promote(10)
    assert await bench.state("late") is State.failed
    await bench.commit(held)
    assert await leased(bench) == ["c"]


@promise
async def a_parked_job_keeps_its_place(bench: Bench) -> None:
    """Called back, it goes before what was submitted after it; its position counts those parked before it."""
    await add(bench, "a", "b", "c", limits=(ONE,))
    held = await bench.lease_one()
    assert await leased(bench) == []
    assert [await bench.engine.position(TENANT, job_id) for job_id in ("b", "c")] == [0, 1]
    await bench.add("later")
    await bench.commit(held)
    assert await bench.engine.position(TENANT, "b") == 0
    assert await leased(bench) == ["b", "later"]


@promise
async def a_queue_has_a_limit_of_its_own(bench: Bench) -> None:
    """`max_running` of a queue's policy: no more of it run, other queues are not touched, and room is hinted at."""
    await bench.engine.set_queue([QueueChange(QUEUE, max_running=2)])
    await bench.submit(*(bench.new(f"j{n}") for n in range(4)))
    await bench.add("o", queue="other")
    first = await bench.lease(10, queues=(QUEUE, "other"))
    assert [held.job_id for held in first] == ["j0", "j1", "o"]
    with bench.engine.listen(f"queue:{QUEUE}") as hints:
        while await hints.wait(0.2):
            assert await leased(bench) == []
        await bench.commit(first[0])
        assert await hints.wait(10) == {f"queue:{QUEUE}"}
    assert await leased(bench) == ["j2"]
    assert (await bench.stats()).policy == (await bench.engine.set_queue([QueueChange(QUEUE)]))[0]
    await bench.engine.set_queue([QueueChange(QUEUE, max_running=None)])
    assert await leased(bench) == ["j3"]


@promise
async def a_long_line_of_those_who_do_not_fit_is_passed(bench: Bench) -> None:
    """One lease parks some hundred at the most; the rest is passed by the next, which is hinted at."""
    await bench.submit(*(bench.new(f"p{n:03}", options=under(ONE)) for n in range(400)))
    await bench.add("free")
    found: list[str] = []
    for _ in range(4):
        found += await leased(bench)
    assert found == ["p000", "free"]
    assert (await limit_of(bench, "gpt")).parked == 399


@promise
async def nothing_is_kept_of_an_idle_limit(bench: Bench) -> None:
    """When nothing runs or waits under a key and its bucket is full, the engine forgets it: keys may be many."""
    for n in range(5):
        limit = Limit(f"user:{n}", max_running=1, per_s=1.0, burst=1.0)
        await bench.commit(await bench.start_job(options=under(limit)))
    bench.clock.advance(TTL_MS + 86_400_000)
    await bench.engine.prune(100)
    assert await bench.engine.limits() == []
    await bench.announce(SESSION)

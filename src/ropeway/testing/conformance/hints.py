"""Hints: who waits is woken, and no wakeup is lost between subscribing and looking (engines.hints)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ropeway.domain.job import JobOptions
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange
from ropeway.engines.base import Engine
from ropeway.testing.bench import QUEUE, SESSION, TENANT, Bench, durable
from ropeway.testing.conformance.registry import durable_promise, promise

__all__: list[str] = []

PATIENCE_S = 20.0  # how long a wakeup may take on a machine under load before it counts as lost


@promise
async def work_wakes_a_queues_listeners(bench: Bench) -> None:
    """`queue:<name>` fires when a job is submitted, promoted, given back, retried or rescued, and on resume."""
    topic = f"queue:{QUEUE}"
    await _assert_hinted(bench.engine, topic, lambda: bench.add())
    held = await bench.lease_one()
    await _assert_hinted(bench.engine, topic, lambda: bench.commit(held, "release"))
    again = await bench.lease_one()
    await _assert_hinted(bench.engine, topic, lambda: bench.commit(again, "retry"))
    await bench.lease_one()
    await _assert_hinted(bench.engine, topic, lambda: bench.expire())
    await bench.lease_one()
    await _assert_hinted(bench.engine, topic, lambda: bench.engine.close(SESSION))
    await bench.add(delay_ms=100)
    bench.clock.advance(100)
    await _assert_hinted(bench.engine, topic, lambda: bench.engine.promote(10))
    await _assert_hinted(bench.engine, topic, lambda: bench.engine.set_queue([QueueChange(QUEUE, paused=False)]))


@promise
async def a_growing_log_wakes_its_readers(bench: Bench) -> None:
    """`job:<id>` fires whenever the job's log grows: lease, append, commit, cancel and rescue."""
    job = await bench.add()
    topic = f"job:{job.id}"
    await _assert_hinted(bench.engine, topic, bench.lease_one)
    await _assert_hinted(bench.engine, topic, lambda: bench.expire())
    held = await bench.lease_one()
    await _assert_hinted(bench.engine, topic, lambda: bench.append(held, held.next_seq, ("log", "1")))
    await _assert_hinted(bench.engine, topic, lambda: bench.commit(held))
    waiting = await bench.add()
    await _assert_hinted(bench.engine, f"job:{waiting.id}", lambda: bench.cancel(waiting.id))


@promise
async def a_failed_wait_wakes_its_readers(bench: Bench) -> None:
    """`job:<id>` fires when a queue timeout ends the job, at promotion and at a lease."""
    for step in (lambda: bench.engine.promote(10), lambda: bench.lease(10)):
        job = await bench.add(options=JobOptions(queue_timeout_s=1))
        bench.clock.advance(1000)
        await bench.announce()
        await _assert_hinted(bench.engine, f"job:{job.id}", step)


@promise
async def an_end_wakes_those_who_wait_for_it(bench: Bench) -> None:
    """`end:<id>` fires when the job ends in any way, and when it is deleted; a start or an event tells it nothing."""
    held = await bench.start_job()
    topic = f"end:{held.job_id}"
    with bench.engine.listen(topic, "lifecycle", f"job:{held.job_id}") as listener:
        await bench.append(held, held.next_seq, ("log", "1"))
        assert await _heard(listener.wait, {f"job:{held.job_id}"}) <= {f"job:{held.job_id}", "lifecycle"}
    await _assert_hinted(bench.engine, topic, lambda: bench.commit(held))
    await _assert_hinted(bench.engine, topic, lambda: bench.engine.purge(TENANT, [held.job_id]))
    waiting = await bench.add()
    await _assert_hinted(bench.engine, f"end:{waiting.id}", lambda: bench.cancel(waiting.id))
    late = await bench.add(options=JobOptions(queue_timeout_s=1))
    bench.clock.advance(1000)
    await _assert_hinted(bench.engine, f"end:{late.id}", lambda: bench.engine.promote(10))


@promise
async def an_end_brings_nothing_but_the_output(bench: Bench) -> None:
    """A hint of `end:<id>` may bring the output of a job that succeeded, as it is kept; any other brings nothing."""
    short, long = '"\\n é \\u2028"', f'"{"x" * 5000}"'
    for kind, output in (("succeeded", short), ("succeeded", long), ("succeeded", None), ("failed", short)):
        held = await bench.start_job()
        with bench.engine.listen(f"end:{held.job_id}") as listener:
            await bench.engine.stats()
            state = await bench.commit(held, kind, output=output)
            assert await listener.wait(PATIENCE_S)
            kept = (await bench.job(held.job_id)).output
            assert listener.told in ((None, kept) if state is State.succeeded else (None,))
            await bench.engine.purge(TENANT, [held.job_id])
            assert await listener.wait(PATIENCE_S)
            assert listener.told is None


@promise
async def a_cancel_wakes_its_worker(bench: Bench) -> None:
    """`worker:<session>` fires when a job that the session runs is asked to stop."""
    held = await bench.start_job()
    await _assert_hinted(bench.engine, f"worker:{SESSION}", lambda: bench.cancel(held.job_id))


@promise
async def whoever_wishes_may_hint(bench: Bench) -> None:
    """`tell` wakes those who listen on its topics, and nobody else."""
    with bench.engine.listen("input:other") as other:
        await _assert_hinted(bench.engine, "input:job_1", lambda: bench.engine.tell("input:job_0", "input:job_1"))
        await _assert_hinted(bench.engine, "job:job_1", lambda: bench.engine.tell("job:job_1"))
        assert await other.wait(0) == set()


@promise
async def a_time_to_wait_for_wakes_upkeep(bench: Bench) -> None:
    """`upkeep` fires when something comes to wait for a time: a delay, a queue timeout, a retry's wait."""
    await _assert_hinted(bench.engine, "upkeep", lambda: bench.add(delay_ms=100))
    await _assert_hinted(bench.engine, "upkeep", lambda: bench.add(options=JobOptions(queue_timeout_s=60)))
    held = await bench.lease_one()
    await _assert_hinted(bench.engine, "upkeep", lambda: bench.commit(held, "retry", delay_ms=50))


@promise
async def every_change_of_state_is_hinted(bench: Bench) -> None:
    """`lifecycle` fires when any job comes, starts or ends."""
    await _assert_hinted(bench.engine, "lifecycle", lambda: bench.add())
    held = await bench.lease(1)
    await _assert_hinted(bench.engine, "lifecycle", lambda: bench.commit(held[0]))


@promise
async def hints_between_two_waits_are_kept(bench: Bench) -> None:
    """What happens while nobody waits is told at the next wait, each topic once; then the listener is quiet."""
    with bench.engine.listen(f"queue:{QUEUE}", "queue:other", "queue:quiet") as listener:
        await bench.submit(bench.new(), bench.new(), bench.new(queue="other"))
        heard = await _heard(listener.wait, {f"queue:{QUEUE}", "queue:other"})
        assert heard == {f"queue:{QUEUE}", "queue:other"}
        assert await listener.wait(0) == set()


@promise
async def no_wakeup_is_lost_after_subscribing(bench: Bench) -> None:
    """Subscribe, look, wait: a job submitted at any moment after the subscription ends the wait."""
    for _ in range(20):
        with bench.engine.listen(f"queue:{QUEUE}") as listener:
            writer = asyncio.create_task(bench.add())
            found = await bench.lease()
            while not found:
                assert await listener.wait(PATIENCE_S), "the wakeup was lost"
                found = await bench.lease()
            await writer
            await bench.commit(found[0])


@promise
async def a_closed_listener_wakes_and_hears_no_more(bench: Bench) -> None:
    """Closing a listener ends its wait; what happens after is not told."""
    listener = bench.engine.listen(f"queue:{QUEUE}")
    waiting = asyncio.create_task(listener.wait(PATIENCE_S))
    await asyncio.sleep(0)
    listener.close()
    assert await waiting == set()
    await bench.add()
    assert await listener.wait(0) == set()


@durable_promise
async def hints_reach_other_processes(bench: Bench) -> None:
    """What one engine writes wakes the listeners of another on the same store."""
    other = await durable(bench.harness).beside(bench.engine)
    await _assert_hinted(other, f"queue:{QUEUE}", lambda: bench.add("job_x"))
    held = await bench.lease_one()
    await _assert_hinted(other, "job:job_x", lambda: bench.append(held, 1, ("log", "1")))
    await _assert_hinted(bench.engine, f"worker:{SESSION}", lambda: other.cancel(TENANT, ["job_x"], None))
    await _assert_hinted(other, "lifecycle", lambda: bench.commit(held))
    await _assert_hinted(bench.engine, "upkeep", lambda: other.submit([bench.new(delay_ms=1000)]))
    await _assert_hinted(bench.engine, "input:job_x", lambda: other.tell("input:job_x"))


async def _assert_hinted(engine: Engine, topic: str, act: Callable[[], Awaitable[object]]) -> None:
    """A listener on this topic that was there before, and has looked since, is woken by the act."""
    with engine.listen(topic) as listener:
        await engine.stats()
        await act()
        assert await listener.wait(PATIENCE_S) == {topic}, f"no hint on {topic}"


async def _heard(wait: Callable[[float], Awaitable[set[str]]], wanted: set[str]) -> set[str]:
    """Hints gathered until all that are wanted came: an engine may tell them one by one."""
    heard: set[str] = set()
    while not wanted <= heard:
        more = await wait(PATIENCE_S)
        assert more, f"no hint on {wanted - heard}"
        heard |= more
    return heard

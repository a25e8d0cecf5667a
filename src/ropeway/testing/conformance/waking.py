"""Waking: a job that waits for a time goes on before it, and one that is about to snooze does not."""

from __future__ import annotations

from ropeway.domain.errors import JobNotFound
from ropeway.domain.job import Job, JobOptions
from ropeway.domain.lifecycle import State
from ropeway.testing.bench import TENANT, Bench, as_
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

YEAR_MS = 366 * 86_400_000


@promise
async def a_scheduled_job_is_queued_when_it_is_woken(bench: Bench) -> None:
    """A delayed job goes into its line at once, at the place that it had from the start, and whoever leases is told."""
    first = await bench.add(delay_ms=YEAR_MS)
    second = await bench.add()
    with bench.engine.listen(f"queue:{first.queue}") as hints:
        woken = await bench.wake(first.id)
        assert await hints.wait(15), "the wakeup was lost"
    assert (woken.state, woken.run_at_ms, woken.version) == (State.queued, None, first.version + 1)
    assert (woken.rank, woken.input) == (first.rank, first.input)
    assert {held.job_id for held in await bench.lease(2)} == {first.id, second.id}
    assert (await bench.engine.promote(10)).next_at_ms is None


@promise
async def a_snoozed_job_is_queued_when_it_is_woken(bench: Bench) -> None:
    """So is one between two attempts, whatever it waits for."""
    held = await bench.start_job()
    await bench.commit(held, "snooze", delay_ms=YEAR_MS)
    assert (await bench.wake(held.job_id)).state is State.queued
    again = await bench.lease_one()
    assert (again.job_id, again.attempt) == (held.job_id, 1)


@promise
async def a_running_job_does_not_sleep_through_its_waking(bench: Bench) -> None:
    """What was woken while it ran is queued at once by its snooze: the waking is not lost between look and commit."""
    held = await bench.start_job()
    woken = await bench.wake(held.job_id)
    assert (woken.state, woken.attempt) == (State.running, 1)
    assert (await bench.wake(held.job_id)).version == woken.version
    assert await bench.commit(held, "snooze", delay_ms=YEAR_MS, detail="for a year") is State.queued
    again = await bench.lease_one()
    assert again.job_id == held.job_id
    assert await bench.commit(again, "snooze", delay_ms=YEAR_MS) is State.scheduled


@promise
async def a_waking_holds_for_its_own_attempt(bench: Bench) -> None:
    """An attempt that fails, or is lost, takes it along: the next one snoozes as long as it says; a retry waits."""
    held = await bench.start_job()
    await bench.wake(held.job_id)
    assert await bench.commit(held, "retry", delay_ms=700) is State.scheduled
    bench.clock.advance(700)
    await bench.engine.promote(10)
    assert await bench.commit(await bench.lease_one(), "snooze", delay_ms=700) is State.scheduled
    bench.clock.advance(700)
    await bench.engine.promote(10)
    lost = await bench.lease_one()
    await bench.wake(lost.job_id)
    await bench.engine.close("s1")
    await bench.announce()
    assert await bench.commit(await bench.lease_one(), "snooze", delay_ms=700) is State.scheduled


@promise
async def waking_changes_no_other_job(bench: Bench) -> None:
    """A queued job, one that has ended, and one that is asked to stop stay as they are."""
    queued = await bench.add()
    assert await bench.wake(queued.id) == queued
    held = await bench.lease_one()
    asked = await bench.cancel(held.job_id)
    assert await bench.wake(held.job_id) == asked
    assert await bench.commit(held, "snooze", delay_ms=700) is State.cancelled
    ended = await bench.job(held.job_id)
    assert await bench.wake(held.job_id) == ended


@promise
async def waking_is_for_the_tenant_alone(bench: Bench) -> None:
    """Another tenant's job, and one that is not there, are not found; the others of the call are woken."""
    job = await bench.add(delay_ms=YEAR_MS)
    assert isinstance((await bench.engine.wake("other", [job.id]))[0], JobNotFound)
    assert await bench.job(job.id) == job
    none, woken = await bench.engine.wake(TENANT, ["job_none", job.id])
    assert isinstance(none, JobNotFound)
    assert as_(Job, woken).state is State.queued


@promise
async def the_time_in_the_queue_begins_at_the_waking(bench: Bench) -> None:
    """A delayed job with a queue deadline has as long to start as it would have had at its time."""
    job = await bench.add(delay_ms=YEAR_MS, options=JobOptions(queue_timeout_s=1.0))
    bench.clock.advance(5_000)
    assert (await bench.wake(job.id)).queue_deadline_ms == bench.clock.now_ms() + 1_000
    bench.clock.advance(999)
    await bench.engine.promote(10)
    assert (await bench.job(job.id)).state is State.queued
    bench.clock.advance(1)
    await bench.engine.promote(10)
    assert (await bench.job(job.id)).state is State.failed

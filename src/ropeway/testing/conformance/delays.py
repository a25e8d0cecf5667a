"""Time before a start: delays, promotion to the millisecond, and queue timeouts."""

from __future__ import annotations

import msgspec

from ropeway.domain.errors import JobError
from ropeway.domain.job import Job, JobOptions
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Promotion
from ropeway.testing.bench import TENANT, Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []


@promise
async def a_delayed_job_is_scheduled(bench: Bench) -> None:
    """A delay counts from the engine's now; until then the job is scheduled, and nobody can lease it."""
    job = await bench.add(delay_ms=1500)
    assert (job.state, job.run_at_ms) == (State.scheduled, bench.clock.now_ms() + 1500)
    assert await bench.lease() == []


@promise
async def promotion_is_exact(bench: Bench) -> None:
    """A scheduled job is queued at its millisecond, not one before."""
    job = await bench.add(delay_ms=1500)
    bench.clock.advance(1499)
    assert await bench.engine.promote(10) == Promotion(0, job.run_at_ms)
    assert await bench.state(job.id) is State.scheduled
    bench.clock.advance(1)
    assert await bench.engine.promote(10) == Promotion(1, None)
    promoted = await bench.job(job.id)
    assert (promoted.state, promoted.run_at_ms) == (State.queued, None)
    assert (await bench.lease_one()).job_id == job.id


@promise
async def promotion_tells_when_the_next_is_due(bench: Bench) -> None:
    """`next_at_ms` is the earliest time that anything waits for, and None when nothing does."""
    now = bench.clock.now_ms()
    assert await bench.engine.promote(10) == Promotion(0, None)
    await bench.submit(bench.new(delay_ms=3000), bench.new("soon", delay_ms=1000), bench.new(delay_ms=2000))
    assert await bench.engine.promote(10) == Promotion(0, now + 1000)
    await bench.cancel("soon")
    assert await bench.engine.promote(10) == Promotion(0, now + 2000)


@promise
async def a_promotion_stops_at_its_limit(bench: Bench) -> None:
    """At most `limit` jobs are moved, the earliest first; the rest by the next call."""
    late, early, middle = await bench.submit(bench.new(delay_ms=300), bench.new(delay_ms=100), bench.new(delay_ms=200))
    bench.clock.advance(1000)
    assert (await bench.engine.promote(2)).moved == 2
    assert await bench.states(early.id, middle.id, late.id) == [State.queued, State.queued, State.scheduled]
    assert (await bench.engine.promote(2)).moved == 1


@promise
async def a_cancelled_job_is_not_promoted(bench: Bench) -> None:
    """A job cancelled while scheduled stays cancelled when its time comes."""
    job = await bench.add(delay_ms=100)
    await bench.cancel(job.id)
    bench.clock.advance(1000)
    assert await bench.engine.promote(10) == Promotion(0, None)
    assert await bench.state(job.id) is State.cancelled


@promise
async def a_purged_job_leaves_no_time_behind(bench: Bench) -> None:
    """When the time comes of a job that was cancelled and purged, promotion passes over it."""
    gone, kept = await bench.submit(bench.new(delay_ms=100), bench.new(delay_ms=100))
    await bench.cancel(gone.id)
    await bench.engine.purge(TENANT, [gone.id])
    bench.clock.advance(100)
    assert await bench.engine.promote(10) == Promotion(1, None)
    assert await bench.states(gone.id, kept.id) == [None, State.queued]


@promise
async def promotion_fails_who_waited_too_long(bench: Bench) -> None:
    """A queued job past its queue timeout fails at promotion, for good, and its log says why."""
    job = await bench.add(options=JobOptions(queue_timeout_s=2))
    bench.clock.advance(1999)
    assert await bench.engine.promote(10) == Promotion(0, bench.clock.now_ms() + 1)
    bench.clock.advance(1)
    assert await bench.engine.promote(10) == Promotion(1, None)
    _assert_timed_out(await bench.job(job.id), bench.clock.now_ms())
    assert await bench.log_types(job.id) == ["job.queued", "job.failed"]


@promise
async def a_lease_passes_over_who_waited_too_long(bench: Bench) -> None:
    """A queued job past its queue timeout fails when a lease meets it, and the next job is leased in its stead."""
    expired = await bench.add(options=JobOptions(queue_timeout_s=2))
    fresh = await bench.add()
    bench.clock.advance(2000)
    assert [held.job_id for held in await bench.lease(1)] == [fresh.id]
    _assert_timed_out(await bench.job(expired.id), bench.clock.now_ms())


@promise
async def a_queue_timeout_counts_from_the_delay(bench: Bench) -> None:
    """A delayed job's queue timeout begins when it is due."""
    job = await bench.add(delay_ms=5000, options=JobOptions(queue_timeout_s=2))
    bench.clock.advance(6999)
    await bench.engine.promote(10)
    assert await bench.state(job.id) is State.queued
    bench.clock.advance(1)
    await bench.engine.promote(10)
    assert await bench.state(job.id) is State.failed


@promise
async def a_queue_timeout_is_for_the_first_start(bench: Bench) -> None:
    """Once started, a job that goes back to its queue may wait there as long as it takes."""
    held = await bench.start_job(options=JobOptions(queue_timeout_s=2))
    await bench.commit(held, "release")
    bench.clock.advance(s=3600)
    assert await bench.engine.promote(10) == Promotion(0, None)
    await bench.announce()
    assert (await bench.lease_one()).job_id == held.job_id


@promise
async def a_retry_waits_its_delay(bench: Bench) -> None:
    """A failed attempt with a delay schedules the job, and promotion brings it back on time."""
    held = await bench.start_job()
    assert await bench.commit(held, "retry", delay_ms=700) is State.scheduled
    bench.clock.advance(699)
    assert (await bench.engine.promote(10)).moved == 0
    bench.clock.advance(1)
    assert (await bench.engine.promote(10)).moved == 1
    assert (await bench.lease_one()).attempt == 2


def _assert_timed_out(job: Job, now_ms: int) -> None:
    assert (job.state, job.finished_at_ms, job.attempt) == (State.failed, now_ms, 0)
    assert msgspec.json.decode(job.error or "", type=JobError).code == "queue_timeout"

"""Snooze: an attempt is given back, and its job runs again later."""

from __future__ import annotations

import json

import msgspec

from ropeway.domain.errors import JobError
from ropeway.domain.job import JobOptions
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.testing.bench import Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

ONCE = Retry(max_attempts=1)


@promise
async def a_snooze_gives_the_attempt_back(bench: Bench) -> None:
    """A snoozed job is scheduled after its delay, with neither a retry nor a crash spent; its runs are counted."""
    held = await bench.start_job(options=JobOptions(retry=ONCE, max_crashes=1))
    assert await bench.commit(held, "snooze", delay_ms=700) is State.scheduled
    job = await bench.job(held.job_id)
    assert (job.attempt, job.runs, job.crashes, job.error, job.output) == (0, 1, 0, None, None)
    assert (job.run_at_ms, job.worker, job.started_at_ms) == (bench.clock.now_ms() + 700, None, None)
    bench.clock.advance(699)
    assert (await bench.engine.promote(10)).moved == 0
    bench.clock.advance(1)
    assert (await bench.engine.promote(10)).moved == 1
    again = await bench.lease_one()
    assert (again.job_id, again.attempt) == (held.job_id, 1)
    assert await bench.commit(again, "retry") is State.failed


@promise
async def a_snooze_of_no_time_is_queued(bench: Bench) -> None:
    """Without a delay the job is back in its place at once."""
    held = await bench.start_job()
    assert await bench.commit(held, "snooze") is State.queued
    assert (await bench.lease_one()).attempt == 1


@promise
async def a_snooze_tells_what_it_waits_for(bench: Bench) -> None:
    """The log says that the attempt snoozed, until when and why; the waiting job's progress says why, until it runs."""
    held = await bench.start_job()
    await bench.append(held, 1, ("progress", '{"fraction":0.5,"message":"sent"}'))
    await bench.commit(held, "snooze", delay_ms=700, detail="ja — 日本")
    event = (await bench.log(held.job_id))[-1]
    run_at_ms = bench.clock.now_ms() + 700
    assert (event.type, event.attempt) == ("job.retrying", 1)
    assert json.loads(event.data) == {"reason": "snoozed", "attempt": 1, "run_at_ms": run_at_ms, "detail": "ja — 日本"}
    progress = (await bench.job(held.job_id)).progress
    assert json.loads(progress or "") == {"fraction": 0.5, "message": "ja — 日本"}
    bench.clock.advance(700)
    await bench.engine.promote(10)
    await bench.lease_one()
    assert (await bench.job(held.job_id)).progress is None


@promise
async def snoozes_are_bounded(bench: Bench) -> None:
    """A job may be given back by snoozes `max_snoozes` times; the next one fails it, for good, keeping its output."""
    job = await bench.add(options=JobOptions(max_snoozes=2))
    for _ in range(2):
        assert await bench.commit(await bench.lease_one(), "snooze") is State.queued
    assert await bench.commit(await bench.lease_one(), "snooze", output='"half"', delay_ms=700) is State.failed
    failed = await bench.job(job.id)
    error = msgspec.json.decode(failed.error or "", type=JobError)
    assert (error.code, error.retryable, failed.attempt, failed.output) == ("snoozed_too_often", False, 1, '"half"')
    assert await bench.lease() == []


@promise
async def a_repeated_snooze_is_answered_again(bench: Bench) -> None:
    """The holder's repeat of its snooze, whose reply was lost, changes nothing."""
    held = await bench.start_job()
    assert await bench.commit(held, "snooze", delay_ms=700) is State.scheduled
    before = await bench.job(held.job_id)
    assert await bench.commit(held, "snooze", delay_ms=700) is State.scheduled
    assert await bench.job(held.job_id) == before


@promise
async def a_job_asked_to_stop_does_not_snooze(bench: Bench) -> None:
    """A cancel that was noted before wins: the job is cancelled, with what the attempt had made."""
    held = await bench.start_job()
    await bench.cancel(held.job_id, "enough")
    assert await bench.commit(held, "snooze", output='"half"', delay_ms=700) is State.cancelled
    job = await bench.job(held.job_id)
    assert (job.output, job.error, job.run_at_ms) == ('"half"', None, None)

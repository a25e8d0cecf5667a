"""Commit: what each outcome makes of a job, and the budgets of retries and crashes (guarantees G4 and G8)."""

from __future__ import annotations

import msgspec

from ropeway.domain.errors import JobError
from ropeway.domain.job import JobOptions
from ropeway.domain.lease import Commit, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.testing.bench import Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

ERROR = '{"code":"task_error","message":"no"}'


@promise
async def a_success_is_kept(bench: Bench) -> None:
    """A succeeded job has its output and usage to the byte, its times, and no session any more."""
    held = await bench.start_job(options=JobOptions(retention_s=60))
    bench.clock.advance(40)
    output = '{"text" : "ja — 日本 🚠", "n": 1.50}'
    assert await bench.commit(held, output=output, usage='{"tokens":7}') is State.succeeded
    job = await bench.job(held.job_id)
    now = bench.clock.now_ms()
    assert (job.state, job.output, job.usage, job.error) == (State.succeeded, output, '{"tokens":7}', None)
    assert (job.finished_at_ms, job.expires_at_ms) == (now, now + 60_000)
    assert (job.session, job.worker) == (None, "worker-s1")


@promise
async def a_failure_for_good_is_kept_for_ever(bench: Bench) -> None:
    """A failed job is not tried again, whatever attempts are left, and keeps input, error and what it produced."""
    held = await bench.start_job(input='{"keep":"me"}')
    assert await bench.commit(held, "failed", output='"half"', error=ERROR) is State.failed
    job = await bench.job(held.job_id)
    assert (job.input, job.output, job.error, job.expires_at_ms) == ('{"keep":"me"}', '"half"', ERROR, None)
    assert await bench.lease() == []


@promise
async def a_task_may_end_cancelled(bench: Bench) -> None:
    """An attempt that ends cancelled of its own accord cancels the job, keeping what it produced."""
    held = await bench.start_job()
    assert await bench.commit(held, "cancelled", output='"half"') is State.cancelled
    assert (await bench.job(held.job_id)).output == '"half"'


@promise
async def usage_of_an_event_outlives_a_silent_commit(bench: Bench) -> None:
    """A commit that tells no usage leaves that of the last usage event."""
    held = await bench.start_job()
    await bench.append(held, 1, ("usage", '{"tokens":1}'))
    await bench.commit(held)
    assert (await bench.job(held.job_id)).usage == '{"tokens":1}'


@promise
async def a_batch_of_commits_is_answered_in_place(bench: Bench) -> None:
    """Each commit of a batch comes to its own state."""
    await bench.submit(*(bench.new() for _ in range(5)))
    held = await bench.lease(5)
    kinds = ("release", "failed", "succeeded", "retry", "cancelled")
    outcomes = [Outcome(kind, error=ERROR) for kind in kinds]
    states = await bench.engine.commit([Commit(one.lease, end) for one, end in zip(held, outcomes, strict=True)])
    assert states == [State.queued, State.failed, State.succeeded, State.queued, State.cancelled]
    assert await bench.states(*(one.job_id for one in held)) == states


@promise
async def retries_are_counted_and_spent(bench: Bench) -> None:
    """A job fails when its attempts are spent, with the last error; no attempt is above `max_attempts`."""
    job = await bench.add(options=JobOptions(retry=Retry(max_attempts=3)))
    ends = []
    for attempt in (1, 2, 3):
        held = await bench.lease_one()
        assert held.attempt == attempt
        ends.append(await bench.commit(held, "retry", error=f'{{"code":"e{attempt}","message":""}}'))
    assert ends == [State.queued, State.queued, State.failed]
    failed = await bench.job(job.id)
    assert (failed.attempt, failed.error) == (3, '{"code":"e3","message":""}')
    assert (await bench.log_types(job.id))[-1] == "job.failed"
    assert await bench.lease() == []


@promise
async def a_waiting_retry_shows_its_error(bench: Bench) -> None:
    """Between attempts the job shows why the last one failed and when the next may start; a success clears it."""
    held = await bench.start_job()
    await bench.commit(held, "retry", error=ERROR, delay_ms=500)
    job = await bench.job(held.job_id)
    assert (job.state, job.error) == (State.scheduled, ERROR)
    assert (job.run_at_ms, job.worker, job.started_at_ms) == (bench.clock.now_ms() + 500, None, None)
    bench.clock.advance(500)
    await bench.engine.promote(10)
    await bench.commit(await bench.lease_one())
    assert (await bench.job(held.job_id)).error is None


@promise
async def a_release_gives_the_attempt_back(bench: Bench) -> None:
    """A drained job is queued again at once with the attempt not counted, however often; its runs are."""
    job = await bench.add(options=JobOptions(retry=Retry(max_attempts=1)))
    for run in (1, 2, 3):
        held = await bench.lease_one()
        assert (held.attempt, (await bench.job(job.id)).runs) == (1, run)
        assert await bench.commit(held, "release") is State.queued
        assert (await bench.job(job.id)).attempt == 0
    assert await bench.commit(await bench.lease_one(), "retry") is State.failed


@promise
async def crashes_have_a_budget_of_their_own(bench: Bench) -> None:
    """A lost worker spends a crash and not a retry."""
    options = JobOptions(retry=Retry(max_attempts=1), max_crashes=3)
    job = await bench.add(options=options)
    for crash in (1, 2):
        held = await bench.lease_one()
        assert (held.attempt, held.crashes) == (crash, crash - 1)
        assert await bench.expire() == 1
        assert await bench.state(job.id) is State.queued
    held = await bench.lease_one()
    assert (held.attempt, held.crashes) == (3, 2)
    assert await bench.commit(held, "retry", error=ERROR) is State.failed
    assert (await bench.job(job.id)).error == ERROR


@promise
async def a_poison_job_runs_out(bench: Bench) -> None:
    """A job that loses its worker `max_crashes` times fails with `worker_lost`, whatever retries are left."""
    options = JobOptions(retry=Retry(max_attempts=100), max_crashes=2)
    job = await bench.add(options=options)
    for _ in range(2):
        await bench.lease_one()
        await bench.expire()
    failed = await bench.job(job.id)
    error = msgspec.json.decode(failed.error or "", type=JobError)
    assert (failed.state, failed.attempt, failed.crashes) == (State.failed, 2, 2)
    assert (error.code, error.attempt) == ("worker_lost", 2)
    assert (failed.session, failed.finished_at_ms) == (None, bench.clock.now_ms())
    assert await bench.lease() == []


@promise
async def a_crash_of_its_process_is_counted_with_the_crashes(bench: Bench) -> None:
    """A worker may tell that an attempt took its process with it: that spends a crash, and no retry."""
    options = JobOptions(retry=Retry(max_attempts=1), max_crashes=3)
    job = await bench.add(options=options)
    held = await bench.lease_one()
    assert await bench.commit(held, "crashed", output='"half"', error=ERROR, delay_ms=500) is State.scheduled
    again = await bench.job(job.id)
    assert (again.attempt, again.crashes, again.error) == (1, 1, ERROR)
    assert again.run_at_ms == bench.clock.now_ms() + 500
    assert await bench.commit(held, "crashed") is State.scheduled
    bench.clock.advance(500)
    await bench.engine.promote(10)
    held = await bench.lease_one()
    assert (held.attempt, held.crashes) == (2, 1)
    assert await bench.commit(held, "crashed", error=ERROR) is State.queued
    held = await bench.lease_one()
    assert await bench.commit(held, "crashed", output='"half"', error=ERROR) is State.failed
    failed = await bench.job(job.id)
    assert (failed.attempt, failed.crashes, failed.output, failed.error) == (3, 3, '"half"', ERROR)
    assert await bench.lease() == []


@promise
async def a_crash_of_a_job_that_was_to_stop_cancels_it(bench: Bench) -> None:
    """Nobody wants another attempt; no crash is counted."""
    held = await bench.start_job()
    await bench.cancel(held.job_id)
    assert await bench.commit(held, "crashed", error=ERROR) is State.cancelled
    job = await bench.job(held.job_id)
    assert (job.crashes, job.error) == (0, None)


@promise
async def a_crash_is_told_in_the_log(bench: Bench) -> None:
    """Readers see why the job runs again, and that its output begins anew."""
    held = await bench.start_job()
    await bench.append(held, 1, ("output.delta", '{"index":0,"delta":"a"}'))
    await bench.commit(held, "crashed", error=ERROR)
    (told,) = [event for event in await bench.log(held.job_id) if event.type == "job.retrying"]
    data = msgspec.json.decode(told.data)
    assert (data["reason"], data["error"]) == ("crashed", msgspec.json.decode(ERROR))
    await bench.lease_one()
    assert "output.reset" in await bench.log_types(held.job_id)


@promise
async def a_job_ends_once(bench: Bench) -> None:
    """Its log has one terminal event, the last; the row never changes after it."""
    held = await bench.start_job()
    await bench.commit(held, output="1")
    ended = await bench.job(held.job_id)
    await bench.cancel(held.job_id, "too late")
    await bench.engine.commit([Commit(held.lease, Outcome("failed", error=ERROR))])
    await bench.expire()
    bench.clock.advance(60_000)
    await bench.engine.promote(10)
    assert await bench.job(held.job_id) == ended
    assert (await bench.log_types(held.job_id)).count("job.succeeded") == 1

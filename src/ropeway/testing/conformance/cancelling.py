"""Cancel in each state, and what becomes of the attempt that was running (guarantee G6)."""

from __future__ import annotations

from ropeway.domain.errors import JobNotFound
from ropeway.domain.job import Job, JobOptions
from ropeway.domain.lease import Append, Appended
from ropeway.domain.lifecycle import State
from ropeway.testing.bench import SESSION, TENANT, Bench, as_
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []


@promise
async def a_waiting_job_is_cancelled_at_once(bench: Bench) -> None:
    """A queued or scheduled job is cancelled on return, with reason and times, and never runs."""
    for delay_ms in (0, 1000):
        job = await bench.add(delay_ms=delay_ms, options=JobOptions(retention_s=60))
        bench.clock.advance(5)
        cancelled = await bench.cancel(job.id, "no need")
        now = bench.clock.now_ms()
        assert (cancelled.state, cancelled.cancel_reason) == (State.cancelled, "no need")
        assert (cancelled.cancel_requested_at_ms, cancelled.finished_at_ms) == (now, now)
        assert (cancelled.expires_at_ms, cancelled.run_at_ms) == (now + 60_000, None)
        assert cancelled == await bench.job(job.id)
        assert cancelled.version == job.version + 1
    bench.clock.advance(2000)
    await bench.engine.promote(10)
    await bench.announce()
    assert await bench.lease(10) == []


@promise
async def a_running_job_is_asked(bench: Bench) -> None:
    """A running job goes on, asked to stop: its row, its next append and its session's renewal tell of it."""
    held = await bench.start_job()
    asked = await bench.cancel(held.job_id, "enough")
    assert (asked.state, asked.cancel_requested_at_ms) == (State.running, bench.clock.now_ms())
    assert asked == await bench.job(held.job_id)
    assert await bench.append(held, 1, ("log", '"still here"')) == Appended(2, cancel_requested=True)
    renewal = await bench.engine.renew(SESSION, 10_000)
    assert (renewal.alive, renewal.cancelled) == (True, (held.job_id,))


@promise
async def no_result_commits_after_a_cancel(bench: Bench) -> None:
    """Whatever an attempt came to, once asked to cancel the job becomes cancelled; what it produced is kept."""
    for kind in ("succeeded", "failed", "cancelled", "retry", "release"):
        held = await bench.start_job()
        await bench.cancel(held.job_id, "enough")
        assert await bench.commit(held, kind, output='"half"', error='{"code":"x","message":"y"}') is State.cancelled
        job = await bench.job(held.job_id)
        assert (job.state, job.output, job.error, job.cancel_reason) == (State.cancelled, '"half"', None, "enough")
        assert (await bench.log_types(held.job_id))[-1] == "job.cancelled"
    assert await bench.lease(10) == []


@promise
async def a_lost_workers_job_is_cancelled_not_retried(bench: Bench) -> None:
    """A job asked to cancel whose worker is lost is cancelled at rescue."""
    held = await bench.start_job()
    await bench.cancel(held.job_id, "enough")
    assert await bench.expire() == 1
    job = await bench.job(held.job_id)
    assert (job.state, job.cancel_reason, job.error) == (State.cancelled, "enough", None)
    assert (await bench.log_types(held.job_id))[-1] == "job.cancelled"
    assert await bench.lease() == []


@promise
async def an_ended_job_is_not_cancelled(bench: Bench) -> None:
    """Cancelling a terminal job is answered with it, unchanged."""
    for kind in ("succeeded", "failed"):
        job = await bench.finish(kind=kind)
        bench.clock.advance(10)
        assert await bench.cancel(job.id, "too late") == job
        assert await bench.job(job.id) == job
    cancelled = await bench.cancel((await bench.add()).id, "first")
    assert await bench.cancel(cancelled.id, "second") == cancelled


@promise
async def a_cancelled_retry_does_not_come_back(bench: Bench) -> None:
    """A job that waits for its next attempt is cancelled as any waiting job, its terminal event after what was."""
    held = await bench.start_job()
    await bench.commit(held, "retry", delay_ms=100, error='{"code":"x","message":"y"}')
    await bench.cancel(held.job_id)
    bench.clock.advance(1000)
    await bench.engine.promote(10)
    assert await bench.lease() == []
    assert (await bench.log_types(held.job_id))[-2:] == ["job.retrying", "job.cancelled"]


@promise
async def a_batch_of_cancels_is_answered_in_place(bench: Bench) -> None:
    """Each job of a batch has its own answer; a job named twice is cancelled once."""
    ended = await bench.finish()
    running = (await bench.start_job()).job_id
    waiting = (await bench.add()).id
    answers = await bench.engine.cancel(TENANT, [waiting, "absent", ended.id, running, waiting], None)
    as_(JobNotFound, answers.pop(1))
    states = [as_(Job, answer).state for answer in answers]
    assert states == [State.cancelled, State.succeeded, State.running, State.cancelled]
    assert answers == await bench.engine.get(TENANT, [waiting, ended.id, running, waiting])


@promise
async def an_append_after_the_end_is_stale(bench: Bench) -> None:
    """Once cancelled, a job's log takes nothing more from the attempt that ran."""
    held = await bench.start_job()
    await bench.cancel(held.job_id)
    await bench.commit(held)
    before = await bench.log(held.job_id)
    (answer,) = await bench.engine.append([Append(held.lease, 1, (("log", "1"),))])
    assert not isinstance(answer, Appended)
    assert await bench.log(held.job_id) == before

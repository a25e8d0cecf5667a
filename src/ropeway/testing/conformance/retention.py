"""Purge and prune: what is deleted, and what never is."""

from __future__ import annotations

from ropeway.domain.errors import JobLive, JobNotFound
from ropeway.domain.event import START
from ropeway.domain.job import JobOptions
from ropeway.domain.lifecycle import State
from ropeway.testing.bench import TENANT, Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []


@promise
async def a_purged_job_is_gone(bench: Bench) -> None:
    """A purged job is not there in any read, and its events are gone with it."""
    held = await bench.start_job()
    await bench.append(held, 1, ("output.delta", "1"))
    await bench.commit(held)
    assert await bench.engine.purge(TENANT, [held.job_id]) == [None]
    assert await bench.engine.get(TENANT, [held.job_id]) == [None]
    assert await bench.engine.read(TENANT, held.job_id, START, 10) is None


@promise
async def only_ended_jobs_are_purged(bench: Bench) -> None:
    """A live job is refused and untouched; an unknown one, or one purged already, is not found."""
    running = await bench.start_job()
    scheduled, queued = await bench.submit(bench.new(delay_ms=5), bench.new())
    ended = await bench.cancel((await bench.add(queue="else")).id)
    ids = [scheduled.id, queued.id, running.job_id, "absent", ended.id, ended.id]
    answers = await bench.engine.purge(TENANT, ids)
    kinds = [type(answer) for answer in answers]
    assert kinds == [JobLive, JobLive, JobLive, JobNotFound, type(None), JobNotFound]
    assert await bench.states(*ids[:3]) == [State.scheduled, State.queued, State.running]


@promise
async def a_job_is_kept_for_its_retention(bench: Bench) -> None:
    """An ended job is there until its retention is over, and pruned at its millisecond with its events."""
    job = await bench.finish(options=JobOptions(retention_s=1.5))
    bench.clock.advance(1499)
    assert await bench.engine.prune(10) == 0
    assert await bench.job(job.id) == job
    bench.clock.advance(1)
    assert await bench.engine.prune(10) == 1
    assert await bench.engine.get(TENANT, [job.id]) == [None]
    assert await bench.engine.read(TENANT, job.id, START, 10) is None


@promise
async def a_failed_job_has_its_own_retention(bench: Bench) -> None:
    """Failed jobs are kept for ever unless told otherwise; `retention_s` is not for them."""
    kept = await bench.finish(kind="failed", options=JobOptions(retention_s=1))
    limited = await bench.finish(kind="failed", options=JobOptions(failed_retention_s=1))
    bench.clock.advance(s=10 * 365 * 86_400)
    assert await bench.engine.prune(10) == 1
    assert await bench.states(kept.id, limited.id) == [State.failed, None]


@promise
async def a_job_may_be_kept_for_ever(bench: Bench) -> None:
    """Without a retention an ended job stays."""
    job = await bench.finish(options=JobOptions(retention_s=None))
    bench.clock.advance(s=10 * 365 * 86_400)
    assert await bench.engine.prune(10) == 0
    assert await bench.state(job.id) is State.succeeded


@promise
async def live_jobs_are_never_pruned(bench: Bench) -> None:
    """However old, a job that has not ended is kept, whatever its retention (guarantee G1)."""
    brief = JobOptions(retention_s=0, failed_retention_s=0)
    running = await bench.start_job(options=brief)
    scheduled, queued = await bench.submit(bench.new(delay_ms=10**12, options=brief), bench.new(options=brief))
    bench.clock.advance(s=10 * 365 * 86_400)
    assert await bench.engine.prune(10) == 0
    states = await bench.states(running.job_id, scheduled.id, queued.id)
    assert states == [State.running, State.scheduled, State.queued]


@promise
async def a_prune_stops_at_its_limit(bench: Bench) -> None:
    """At most `limit` jobs are deleted in one call, the longest expired first."""
    jobs = [await bench.finish(options=JobOptions(retention_s=seconds)) for seconds in (3, 1, 2)]
    bench.clock.advance(5000)
    assert await bench.engine.prune(2) == 2
    assert await bench.states(*(job.id for job in jobs)) == [State.succeeded, None, None]
    assert await bench.engine.prune(2) == 1


@promise
async def a_cancelled_job_is_kept_like_a_success(bench: Bench) -> None:
    """`retention_s` holds for cancelled jobs too."""
    job = await bench.add(options=JobOptions(retention_s=2))
    await bench.cancel(job.id)
    bench.clock.advance(1999)
    assert await bench.engine.prune(10) == 0
    bench.clock.advance(1)
    assert await bench.engine.prune(10) == 1

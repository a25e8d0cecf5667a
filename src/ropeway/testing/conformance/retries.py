"""`retry`: a job that has ended, run again as a new job."""

from __future__ import annotations

from ropeway.domain.errors import JobNotFound, JobNotRetryable, QueueFull
from ropeway.domain.job import JobOptions, Receipt
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange
from ropeway.domain.rank import Priority
from ropeway.testing.bench import QUEUE, TENANT, Bench, as_
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []


@promise
async def a_retry_is_a_new_job(bench: Bench) -> None:
    """A retry makes a job with the same task, queue, input, priority and options, which names the old one."""
    options = JobOptions(timeout_s=5, tags=("x",))
    old = await bench.finish("old", "failed", input='{"n":7}', priority=Priority.high, options=options)
    bench.clock.advance(100)
    (answer,) = await bench.engine.retry(TENANT, [("old", "new")])
    job = as_(Receipt, answer).job
    assert job == await bench.job("new")
    assert (job.state, job.attempt, job.retry_of) == (State.queued, 0, "old")
    assert (job.task, job.queue, job.input) == (old.task, old.queue, old.input)
    assert (job.priority, job.options, job.created_at_ms) == (old.priority, old.options, bench.clock.now_ms())
    assert await bench.job("old") == old


@promise
async def a_retried_child_is_by_itself(bench: Bench) -> None:
    """Its parent may be over, and would take it along: the new job has none, and waits for what the old one did."""
    options = JobOptions(parent="job_p", after=("job_a",), after_failure="run")
    await bench.finish("old", "failed", options=options)
    (answer,) = await bench.engine.retry(TENANT, [("old", "new")])
    assert as_(Receipt, answer).job.options == JobOptions(after=("job_a",), after_failure="run")
    assert (await bench.job("old")).options == options


@promise
async def any_ended_job_can_be_retried(bench: Bench) -> None:
    """Succeeded, failed and cancelled jobs alike, more than once."""
    for kind in ("succeeded", "failed", "cancelled"):
        await bench.finish(kind, kind)
    answers = await bench.engine.retry(TENANT, [(kind, f"{kind}-1") for kind in ("succeeded", "failed", "cancelled")])
    answers += await bench.engine.retry(TENANT, [("failed", "failed-2")])
    assert [as_(Receipt, answer).job.retry_of for answer in answers] == ["succeeded", "failed", "cancelled", "failed"]


@promise
async def a_live_job_cannot_be_retried(bench: Bench) -> None:
    """A scheduled, queued or running job is refused, and an unknown one is not found; the others go through."""
    running = await bench.start_job()
    scheduled, queued = await bench.submit(bench.new(delay_ms=5), bench.new())
    ended = await bench.cancel((await bench.add(queue="else")).id)
    ids = (scheduled.id, queued.id, running.job_id, "absent", ended.id)
    answers = await bench.engine.retry(TENANT, [(job_id, f"{job_id}-again") for job_id in ids])
    kinds = [type(answer) for answer in answers]
    assert kinds == [JobNotRetryable, JobNotRetryable, JobNotRetryable, JobNotFound, Receipt]
    assert await bench.states(*(f"{job_id}-again" for job_id in ids)) == [None, None, None, None, State.queued]


@promise
async def a_repeated_retry_is_a_replay(bench: Bench) -> None:
    """The same new id again gives the same new job: a retry of unknown outcome may be repeated."""
    await bench.finish("old", "failed")
    await bench.engine.retry(TENANT, [("old", "new")])
    (answer,) = await bench.engine.retry(TENANT, [("old", "new")])
    assert as_(Receipt, answer) == Receipt(await bench.job("new"), replayed=True, depth=1)


@promise
async def a_retry_needs_room(bench: Bench) -> None:
    """A retry counts against the queue's depth as any submit."""
    await bench.finish("old", "failed")
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth=1)])
    await bench.add()
    (answer,) = await bench.engine.retry(TENANT, [("old", "new")])
    as_(QueueFull, answer)
    assert await bench.engine.get(TENANT, ["new"]) == [None]


@promise
async def a_retry_claims_no_key(bench: Bench) -> None:
    """A retry of a keyed job makes a new job all the same, and the key stays the old one's."""
    await bench.finish("old", "failed", idempotency_key="k", fingerprint="f")
    (answer,) = await bench.engine.retry(TENANT, [("old", "new")])
    assert as_(Receipt, answer).job.id == "new"
    (replay,) = await bench.engine.submit([bench.new(idempotency_key="k", fingerprint="f")])
    assert as_(Receipt, replay).job.id == "old"

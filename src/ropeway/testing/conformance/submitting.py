"""Submit: what is stored, and what is answered in each job's place."""

from __future__ import annotations

from ropeway.domain.errors import IdempotencyKeyReused, QueueFull
from ropeway.domain.job import JobOptions, Receipt
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.testing.bench import QUEUE, TENANT, Bench, as_
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

FULL_OPTIONS = JobOptions(
    timeout_s=1.5,
    queue_timeout_s=60.0,
    retention_s=None,
    failed_retention_s=3600.0,
    retry=Retry(max_attempts=7, base_s=0.25, factor=3.0, cap_s=90.0),
    max_crashes=5,
    cost=2.5,
    concurrency_key="user-7",
    on_disconnect="cancel",
    metadata={"trace": "a/b", "naïve": "ja — 日本 🚠"},
    tags=("one", "two"),
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


@promise
async def a_submitted_job_reads_back_as_given(bench: Bench) -> None:
    """Every field of a submit is kept: input to the byte, options to the last."""
    text = '{"text":"ja — 日本 🚠","n":1.50,"big":123456789012345678901234567890,"nul":"\\u0000"}'
    new = bench.new("job_x", input=text, priority=Priority.high, options=FULL_OPTIONS, retry_of="job_w")
    (receipt,) = await bench.engine.submit([new])
    job = await bench.job("job_x")
    assert as_(Receipt, receipt).job == job
    assert (job.id, job.tenant, job.queue, job.task, job.input) == ("job_x", TENANT, QUEUE, "echo", text)
    assert (job.priority, job.options, job.retry_of) == (Priority.high, FULL_OPTIONS, "job_w")


@promise
async def a_new_job_waits_with_nothing_done(bench: Bench) -> None:
    """A new job is queued at version 1, without attempts, and its log ends at `0-1`."""
    job = await bench.add()
    assert (job.state, job.version, job.attempt, job.crashes, job.runs) == (State.queued, 1, 0, 0, 0)
    assert str(job.last_cursor) == "0-1"
    assert job.created_at_ms == bench.clock.now_ms()
    assert (job.run_at_ms, job.started_at_ms, job.finished_at_ms, job.expires_at_ms) == (None, None, None, None)
    assert (job.worker, job.session, job.token, job.output, job.error) == (None, None, None, None, None)


@promise
async def a_batch_is_answered_in_its_order(bench: Bench) -> None:
    """Answers stand in the order of the jobs, for a large batch too."""
    jobs = [bench.new(f"job_{n}") for n in range(500)]
    stored = await bench.submit(*jobs)
    assert [job.id for job in stored] == [job.id for job in jobs]
    assert await bench.states(*(job.id for job in jobs)) == [State.queued] * 500


@promise
async def each_job_of_a_batch_has_an_answer_of_its_own(bench: Bench) -> None:
    """Accepted, replayed and refused jobs of one batch are answered in place, and the refused leave no trace."""
    await bench.engine.set_queue([QueueChange("narrow", max_depth=1)])
    jobs = [
        bench.new("a", idempotency_key="k", fingerprint="1"),
        bench.new("b", queue="narrow"),
        bench.new("c", queue="narrow"),
        bench.new("d", idempotency_key="k", fingerprint="1"),
        bench.new("e", idempotency_key="k", fingerprint="2"),
        bench.new("f"),
    ]
    answers = await bench.engine.submit(jobs)
    kinds = [type(answer) for answer in answers]
    assert kinds == [Receipt, Receipt, QueueFull, Receipt, IdempotencyKeyReused, Receipt]
    assert (as_(Receipt, answers[3]).job.id, as_(Receipt, answers[3]).replayed) == ("a", True)
    assert await bench.engine.get(TENANT, ["c", "d", "e"]) == [None, None, None]


@promise
async def a_receipt_tells_how_many_wait(bench: Bench) -> None:
    """`depth` counts the waiting jobs of the queue, scheduled ones too, this one included."""
    jobs = [bench.new(), bench.new(delay_ms=1000), bench.new(queue="other"), bench.new()]
    answers = await bench.engine.submit(jobs)
    assert [as_(Receipt, answer).depth for answer in answers] == [1, 2, 1, 3]
    await bench.lease_one()
    (answer,) = await bench.engine.submit([bench.new()])
    assert as_(Receipt, answer).depth == 3


@promise
async def a_known_id_is_a_replay(bench: Bench) -> None:
    """Submitting an id again gives the job as it stands now: a client may repeat a submit of unknown outcome."""
    new = bench.new("job_x")
    await bench.submit(new)
    held = await bench.lease_one()
    await bench.commit(held, output='"done"')
    (answer,) = await bench.engine.submit([new])
    receipt = as_(Receipt, answer)
    assert receipt.replayed
    assert (receipt.job.state, receipt.job.output) == (State.succeeded, '"done"')
    assert (await bench.stats()).waiting == 0


@promise
async def an_id_twice_in_one_batch_is_one_job(bench: Bench) -> None:
    """The second of two equal ids in a batch is the replay of the first."""
    first, second = await bench.engine.submit([bench.new("job_x"), bench.new("job_x")])
    assert (as_(Receipt, first).replayed, as_(Receipt, second).replayed) == (False, True)
    assert (await bench.stats()).queued == 1


@promise
async def another_tenants_id_is_taken(bench: Bench) -> None:
    """An id that another tenant has is refused, and tells nothing of that job."""
    await bench.add("job_x", tenant="rival")
    (answer,) = await bench.engine.submit([bench.new("job_x")])
    as_(IdempotencyKeyReused, answer)
    assert (await bench.job("job_x", "rival")).tenant == "rival"


@promise
async def a_purged_id_may_be_used_again(bench: Bench) -> None:
    """After a purge the id is free; the new job shares nothing with the old one, not its retention either."""
    options = JobOptions(retention_s=60.0)
    await bench.finish("job_x", options=options)
    await bench.engine.purge(TENANT, ["job_x"])
    await bench.add("job_x")
    assert await bench.log_types("job_x") == ["job.queued"]
    bench.clock.advance(s=3600)
    await bench.engine.prune(100)
    assert await bench.state("job_x") is State.queued
    assert await bench.engine.position(TENANT, "job_x") == 0


@promise
async def an_empty_batch_is_answered_empty(bench: Bench) -> None:
    """A batch of nothing does nothing and comes back as nothing."""
    engine = bench.engine
    assert await engine.submit([]) == []
    assert await engine.cancel(TENANT, [], None) == []
    assert await engine.retry(TENANT, []) == []
    assert await engine.purge(TENANT, []) == []
    assert await engine.set_queue([]) == []
    assert await engine.append([]) == []
    assert await engine.commit([]) == []
    assert await engine.get(TENANT, []) == []
    await engine.publish([])

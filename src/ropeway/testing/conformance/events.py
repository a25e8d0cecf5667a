"""The event log: what is written, under which ids, and what the row tells of it (guarantee G5)."""

from __future__ import annotations

import json

from ropeway.domain.event import Cursor, Event
from ropeway.domain.job import JobOptions
from ropeway.domain.lease import Appended
from ropeway.domain.lifecycle import State
from ropeway.testing.bench import SESSION, Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

DELTA = "output.delta"


@promise
async def a_log_opens_with_queued(bench: Bench) -> None:
    """Event `0-1` of every job is `job.queued`, at the time of its submit, naming its queue."""
    job = await bench.add(queue="gpu")
    (event,) = await bench.log(job.id)
    assert event == Event(Cursor(0, 1), "job.queued", job.id, 0, bench.clock.now_ms(), event.data)
    assert json.loads(event.data) == {"queue": "gpu"}


@promise
async def an_attempt_opens_with_started(bench: Bench) -> None:
    """A lease writes `job.started` as event 0 of its epoch, naming attempt and worker."""
    held = await bench.start_job()
    event = (await bench.log(held.job_id))[-1]
    assert (event.cursor, event.type, event.attempt) == (Cursor(held.lease.epoch, 0), "job.started", 1)
    assert json.loads(event.data) == {"attempt": 1, "worker": f"worker-{SESSION}"}


@promise
async def events_are_numbered_in_their_epoch(bench: Bench) -> None:
    """Events get the ids `<epoch>-<n>`, n contiguous; the answer tells the next n; all is kept as it was given."""
    held = await bench.start_job()
    first = await bench.append(held, 1, (DELTA, '"ja — 日本"'), (DELTA, '{"a" : 1}'))
    bench.clock.advance(5)
    second = await bench.append(held, 3, ("custom.type", "null"))
    assert (first, second) == (Appended(3), Appended(4))
    events = (await bench.log(held.job_id))[2:]
    epoch = held.lease.epoch
    assert [event.id for event in events] == [f"{epoch}-1", f"{epoch}-2", f"{epoch}-3"]
    assert [(event.type, event.data) for event in events] == [
        (DELTA, '"ja — 日本"'),
        (DELTA, '{"a" : 1}'),
        ("custom.type", "null"),
    ]
    assert [event.at_ms for event in events] == [epoch, epoch, epoch + 5]
    assert {(event.job_id, event.attempt) for event in events} == {(held.job_id, 1)}


@promise
async def a_success_is_the_last_event(bench: Bench) -> None:
    """The terminal event follows the attempt's own, carries output and usage, and is the job's last cursor."""
    held = await bench.start_job()
    await bench.append(held, 1, (DELTA, "1"))
    bench.clock.advance(7)
    await bench.commit(held, output='{"a":1}', usage='{"tokens":3}')
    event = (await bench.log(held.job_id))[-1]
    assert (event.cursor, event.type) == (Cursor(held.lease.epoch, 2), "job.succeeded")
    assert (event.attempt, event.at_ms) == (1, bench.clock.now_ms())
    assert json.loads(event.data) == {"output": {"a": 1}, "usage": {"tokens": 3}}
    assert (await bench.job(held.job_id)).last_cursor == event.cursor


@promise
async def a_failure_and_a_cancel_tell_why(bench: Bench) -> None:
    """`job.failed` carries the error, `job.cancelled` the caller's reason."""
    failing = await bench.start_job()
    await bench.commit(failing, "failed", error='{"code":"task_error","message":"no"}')
    assert json.loads((await bench.log(failing.job_id))[-1].data) == {"error": {"code": "task_error", "message": "no"}}
    waiting = await bench.add()
    await bench.cancel(waiting.id, "changed my mind")
    last = (await bench.log(waiting.id))[-1]
    assert (last.id, last.type, last.attempt) == ("0-2", "job.cancelled", 0)
    assert json.loads(last.data) == {"reason": "changed my mind"}


@promise
async def a_retry_keeps_the_old_attempt(bench: Bench) -> None:
    """A retry ends its attempt with `job.retrying`; the next opens with `job.started` and `output.reset`."""
    held = await bench.start_job()
    await bench.append(held, 1, (DELTA, "1"))
    await bench.commit(held, "retry", error='{"code":"x","message":"y"}', delay_ms=100)
    bench.clock.advance(100)
    await bench.engine.promote(10)
    again = await bench.lease_one()
    await bench.append(again, again.next_seq, (DELTA, "2"))
    await bench.commit(again)
    events = await bench.log(held.job_id)
    one, two = held.lease.epoch, again.lease.epoch
    assert [(event.id, event.type, event.attempt) for event in events] == [
        ("0-1", "job.queued", 0),
        (f"{one}-0", "job.started", 1),
        (f"{one}-1", DELTA, 1),
        (f"{one}-2", "job.retrying", 1),
        (f"{two}-0", "job.started", 2),
        (f"{two}-1", "output.reset", 2),
        (f"{two}-2", DELTA, 2),
        (f"{two}-3", "job.succeeded", 2),
    ]
    retrying = json.loads(events[3].data)
    assert retrying == {
        "reason": "retry",
        "attempt": 1,
        "run_at_ms": one + 100,
        "error": {"code": "x", "message": "y"},
    }


@promise
async def a_rescue_speaks_in_an_epoch_of_its_own(bench: Bench) -> None:
    """When a worker is lost, `job.retrying` is event 0 of a new epoch: the lost worker can write none after it."""
    held = await bench.start_job()
    await bench.append(held, 1, (DELTA, "1"))
    await bench.expire()
    events = await bench.log(held.job_id)
    last = events[-1]
    assert [event.type for event in events] == ["job.queued", "job.started", DELTA, "job.retrying"]
    assert (last.cursor, last.attempt) == (Cursor(bench.clock.now_ms(), 0), 1)
    told = json.loads(last.data)
    assert (told["reason"], told["attempt"], told["error"]["code"]) == ("worker_lost", 1, "worker_lost")
    again = await bench.lease_one()
    assert again.lease.epoch > last.cursor.epoch


@promise
async def a_lost_jobs_last_event_stands_after_the_lost_attempt(bench: Bench) -> None:
    """A rescue that ends the job keeps the attempt's opening events, and puts the terminal one in a new epoch."""
    held = await bench.start_job(options=JobOptions(max_crashes=1))
    await bench.append(held, 1, (DELTA, "1"))
    before = await bench.log(held.job_id)
    await bench.expire()
    events = await bench.log(held.job_id)
    assert events[:-1] == before
    assert (events[-1].type, events[-1].cursor) == ("job.failed", Cursor(bench.clock.now_ms(), 0))


@promise
async def a_release_is_told_as_one(bench: Bench) -> None:
    """A drained attempt ends with `job.retrying`, reason `released`; the next resets the output."""
    held = await bench.start_job()
    await bench.commit(held, "release")
    await bench.lease_one()
    events = await bench.log(held.job_id)
    assert [event.type for event in events] == [
        "job.queued",
        "job.started",
        "job.retrying",
        "job.started",
        "output.reset",
    ]
    assert json.loads(events[2].data) == {"reason": "released", "attempt": 1, "run_at_ms": None}
    assert [event.attempt for event in events] == [0, 1, 1, 1, 1]


@promise
async def a_written_event_never_changes(bench: Bench) -> None:
    """Whatever happens to the job later, events once read are read again the same."""
    held = await bench.start_job()
    seen = await bench.log(held.job_id)
    for step in ("append", "cancel", "release"):
        if step == "append":
            await bench.append(held, 1, (DELTA, "1"), ("progress", '{"done":0.5}'))
        elif step == "cancel":
            await bench.cancel(held.job_id, "why not")
        else:
            assert await bench.commit(held, "release") is State.cancelled
        now = await bench.log(held.job_id)
        assert now[: len(seen)] == seen, step
        seen = now


@promise
async def an_event_moves_the_row(bench: Bench) -> None:
    """The row shows the newest progress and usage, and when the first output came; its version rises."""
    held = await bench.start_job()
    before = await bench.job(held.job_id)
    bench.clock.advance(30)
    await bench.append(held, 1, ("progress", "1"), (DELTA, '"a"'), ("usage", '{"t":1}'))
    bench.clock.advance(30)
    await bench.append(held, 4, (DELTA, '"b"'), ("progress", "2"))
    job = await bench.job(held.job_id)
    assert (job.progress, job.usage) == ("2", '{"t":1}')
    assert job.first_output_at_ms == held.started_at_ms + 30
    assert job.version > before.version


@promise
async def a_new_attempt_begins_without_progress(bench: Bench) -> None:
    """Progress and first output belong to an attempt: the next one has none yet."""
    held = await bench.start_job()
    await bench.append(held, 1, ("progress", "1"), (DELTA, '"a"'))
    await bench.commit(held, "retry")
    await bench.lease_one()
    job = await bench.job(held.job_id)
    assert (job.progress, job.first_output_at_ms) == (None, None)


@promise
async def a_large_append_is_one_step(bench: Bench) -> None:
    """A thousand events in one append are all there, in order."""
    held = await bench.start_job()
    drafts = [(DELTA, str(n)) for n in range(1000)]
    assert await bench.append(held, 1, *drafts) == Appended(1001)
    events = await bench.log(held.job_id, limit=2000)
    assert [event.data for event in events[2:]] == [str(n) for n in range(1000)]

"""What becomes of a job: each change of its state as the row afterwards, and the events that must be stored with it.

Engines write the hot changes (submit, lease, append, the plain commit) set by set in their own language; these are the
rules of all others, and the statement of what the hot ones come to.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from ropeway.domain.cache import SHARERS_KEPT
from ropeway.domain.delivery import delivery_of
from ropeway.domain.errors import JobError, LeaseLost
from ropeway.domain.event import Cursor, Event
from ropeway.domain.job import Job, NewJob, expiry_ms
from ropeway.domain.lease import Lease, Outcome, next_epoch
from ropeway.domain.lifecycle import State, may_become
from ropeway.domain.limit import TOKENS, tokens_in
from ropeway.domain.log import opening_events, retrying_event

__all__ = [
    "ENDS",
    "Change",
    "asked_to_stop",
    "called",
    "committed",
    "ends_unheard",
    "overdue",
    "parked",
    "promoted",
    "repeated",
    "shared",
    "stopped",
    "with_output",
    "woken",
    "worker_lost",
]

ENDS = {"succeeded": State.succeeded, "failed": State.failed, "cancelled": State.cancelled}
"""The outcomes that end a job, and the state that each ends it in."""

_AGAIN = {"retry": "retry", "release": "released", "snooze": "snoozed"}
"""The outcomes that do not, and the reason that the log gives."""

_WORKER_LOST = JobError("worker_lost", "the worker that ran this job was lost")

_encode = msgspec.json.Encoder().encode


class Change(NamedTuple):
    """A job as it stands after a change. `events` are to be stored: the row no longer tells them.

    `delivery` is to be stored in the same step, unless its id is known, and no limit of its queue counts: the job that
    tells of this one's end. `used` is what the attempt told as it ended (JSON), to be added to its tenant's account.
    `owed` is how much more than its cost the job turned out to take (less: below 0): its tenant's tag moves by that.
    """

    job: Job
    events: tuple[Event, ...] = ()
    delivery: NewJob | None = None
    used: str | None = None
    owed: float = 0.0


def promoted(job: Job) -> Change:
    """A scheduled job's time has come."""
    return Change(_moved(job, State.queued, run_at_ms=None))


def woken(job: Job, now_ms: int) -> Change | None:
    """A job has what it waits for: a scheduled one is queued now, a running one as soon as it snoozes. None: neither.

    The time that it may stay in its queue begins now, as it does at its time.
    """
    if job.state is State.scheduled:
        deadline_ms = job.queue_deadline_ms
        if deadline_ms is not None:
            deadline_ms += now_ms - (job.run_at_ms or now_ms)
        return Change(_moved(job, State.queued, run_at_ms=None, queue_deadline_ms=deadline_ms))
    if job.state is not State.running or job.woken_epoch == job.epoch or job.cancel_requested_at_ms is not None:
        return None
    return Change(msgspec.structs.replace(job, woken_epoch=job.epoch, version=job.version + 1))


def overdue(job: Job, now_ms: int) -> Change:
    """A queued job waited longer than it may."""
    error = JobError("queue_timeout", f"not started within {job.options.queue_timeout_s:g} s")
    return _finished(job, State.failed, now_ms, error=_json(error))


def asked_to_stop(job: Job, reason: str | None, now_ms: int) -> Change:
    """A live job that nobody asked to stop yet is: a waiting one is cancelled, a running one only asked."""
    asked = msgspec.structs.replace(job, cancel_requested_at_ms=now_ms, cancel_reason=reason)
    if job.state is not State.running:
        return _finished(asked, State.cancelled, now_ms)
    return Change(msgspec.structs.replace(asked, version=job.version + 1))


def shared(job: Job, by: str) -> Change | None:
    """One more submit, whose id `by` is, is answered with a live job. None: it was before, and is sent again."""
    known = (job.sharers or "").split()
    return None if by in known else _shared(job, +1, [*known, by])


def stopped(job: Job, reason: str | None, now_ms: int, word: str | None = None, for_all: bool = False) -> Change | None:
    """A caller wants a job no more: it goes on while others share it, unless this is `for_all`. None: nothing changes.

    `word` is the caller's for this cancel: one that is sent again under it counts once.
    """
    if job.state.terminal or job.cancel_requested_at_ms is not None:
        return None
    known = (job.sharers or "").split()
    if word is not None and word in known:
        return None
    if not job.joined or for_all:
        return asked_to_stop(job, reason, now_ms)
    return _shared(job, -1, known if word is None else [*known, word])


def _shared(job: Job, step: int, known: list[str]) -> Change:
    sharers = " ".join(known[-SHARERS_KEPT:]) or None
    return Change(msgspec.structs.replace(job, joined=job.joined + step, sharers=sharers, version=job.version + 1))


def committed(job: Job, outcome: Outcome, now_ms: int) -> Change:
    """The holder of a running job's lease says what its attempt came to."""
    return _came_to(job, outcome, now_ms)._replace(used=outcome.usage, owed=_owed(job, outcome.usage))


def _owed(job: Job, usage: str | None) -> float:
    """What its tenant has not paid for: the cost was paid once, at submit."""
    took = tokens_in(usage) if job.options.cost_measure == TOKENS else None
    if took is None:
        return 0.0
    return took - job.options.cost if job.runs == 1 else took


def _came_to(job: Job, outcome: Outcome, now_ms: int) -> Change:
    kept: dict[str, Any] = {"last_outcome": outcome.kind, "output": outcome.output, "error": outcome.error}
    if outcome.usage is not None:
        kept["usage"] = outcome.usage
    if job.cancel_requested_at_ms is not None:
        return _finished(job, State.cancelled, now_ms, **{**kept, "error": None})
    if outcome.kind in ENDS:
        return _finished(job, ENDS[outcome.kind], now_ms, **kept)
    if outcome.kind == "retry" and job.attempts_spent:
        return _finished(job, State.failed, now_ms, **kept)
    if outcome.kind == "crashed":
        return _crashed(job, now_ms, kept, outcome.delay_ms)
    if outcome.kind == "snooze" and job.given_back >= job.options.max_snoozes:
        return _finished(job, State.failed, now_ms, **{**kept, "error": _json(_too_often(job))})
    is_awake = outcome.kind == "snooze" and job.woken_epoch == job.epoch
    if outcome.detail is not None:
        job = msgspec.structs.replace(job, progress=_waits_for(job, outcome.detail))
    return _again(
        job,
        _AGAIN[outcome.kind],
        now_ms,
        Cursor(job.epoch, job.seq),
        outcome.error,
        0 if is_awake else outcome.delay_ms,
        outcome.detail,
        attempt=job.attempt if outcome.kind == "retry" else job.attempt - 1,
        last_outcome=outcome.kind,
    )


def _too_often(job: Job) -> JobError:
    message = f"snoozed more often than it may (max_snoozes: {job.options.max_snoozes})"
    return JobError("snoozed_too_often", message, attempt=job.attempt)


def _waits_for(job: Job, detail: str) -> str:
    """The progress of a job that snoozes: as far as it was, and what it waits for."""
    told = None if job.progress is None else msgspec.json.decode(job.progress)
    return _json({**(told if isinstance(told, dict) else {}), "message": detail})


def _crashed(job: Job, now_ms: int, kept: dict[str, Any], delay_ms: int) -> Change:
    """The attempt took its own process with it, and its worker lives to tell: a crash is spent, as by a lost worker."""
    crashes = job.crashes + 1
    if crashes >= job.options.max_crashes:
        return _finished(job, State.failed, now_ms, crashes=crashes, **kept)
    cursor = Cursor(job.epoch, job.seq)
    return _again(job, "crashed", now_ms, cursor, kept["error"], delay_ms, crashes=crashes, last_outcome="crashed")


def repeated(job: Job | None, lease: Lease, outcome: Outcome) -> State | LeaseLost:
    """The answer to a commit that does not hold its lease: the state that the holder's earlier one led to, if any."""
    if job is None or job.token != lease.token or job.last_outcome != outcome.kind:
        return LeaseLost()
    return job.state


def worker_lost(job: Job, now_ms: int) -> Change:
    """The worker of a running job is gone: the attempt ends under a new epoch, which fences the old holder."""
    epoch = next_epoch(job.epoch, now_ms)
    crashes = job.crashes + 1
    fenced: dict[str, Any] = {"token": None, "crashes": crashes}
    if job.cancel_requested_at_ms is not None:
        return _lost_for_good(job, State.cancelled, now_ms, epoch, None, fenced)
    if crashes >= job.options.max_crashes:
        error = msgspec.structs.replace(_WORKER_LOST, attempt=job.attempt)
        return _lost_for_good(job, State.failed, now_ms, epoch, _json(error), fenced)
    error = msgspec.structs.replace(_WORKER_LOST, attempt=job.attempt, retryable=True)
    return _again(job, "worker_lost", now_ms, Cursor(epoch, 0), _json(error), **fenced)


def _lost_for_good(
    job: Job, state: State, now_ms: int, epoch: int, error: str | None, fenced: dict[str, Any]
) -> Change:
    """A lost attempt that ends its job: its opening is stored, since the terminal event stands in another epoch."""
    ended = _finished(job, state, now_ms, epoch=epoch, seq=1, started_epoch=0, error=error, **fenced)
    return Change(ended.job, tuple(opening_events(job)), ended.delivery)


def ends_unheard(change: Change) -> bool:
    """Whether this ends a job that has run, and no attempt said what it made: then only the log tells."""
    job = change.job
    return job.state.terminal and job.output is None and job.runs > 0


def with_output(change: Change, output: str | None) -> Change:
    """The same end with this output (JSON), as far as the log had it."""
    job = msgspec.structs.replace(change.job, output=output)
    return change._replace(job=job, delivery=delivery_of(job))


def _again(
    job: Job,
    reason: str,
    now_ms: int,
    cursor: Cursor,
    error: str | None,
    delay_ms: int = 0,
    detail: str | None = None,
    **changes: Any,
) -> Change:
    """End an attempt and not the job: its opening events are stored, then why it is to run again, and when."""
    run_at_ms = now_ms + delay_ms if delay_ms > 0 else None
    events = (*opening_events(job), retrying_event(job, cursor, now_ms, reason, run_at_ms, error, detail))
    again = _moved(
        job,
        State.queued if run_at_ms is None else State.scheduled,
        epoch=cursor.epoch,
        seq=cursor.seq + 1,
        started_epoch=0,
        started_at_ms=None,
        first_output_at_ms=None,
        run_at_ms=run_at_ms,
        worker=None,
        session=None,
        error=error,
        **changes,
    )
    return Change(again, events)


def _finished(job: Job, new: State, now_ms: int, **changes: Any) -> Change:
    """Take a job to a terminal state, its last event counted."""
    changes.setdefault("seq", job.seq + 1)
    expires_at_ms = expiry_ms(job.options, new, now_ms)
    ended = {"finished_at_ms": now_ms, "expires_at_ms": expires_at_ms, "run_at_ms": None, "session": None}
    last = _moved(job, new, **ended, **changes)
    return Change(last, delivery=delivery_of(last))


def _moved(job: Job, new: State, **changes: Any) -> Job:
    if not may_become(job.state, new):
        raise AssertionError(f"no arrow from {job.state} to {new} ({job.id})")
    return msgspec.structs.replace(job, state=new, version=job.version + 1, parked=None, **changes)


def parked(job: Job, key: str) -> Change:
    """A queued job does not fit a limit: it waits under the limit's key, out of its line."""
    return Change(msgspec.structs.replace(job, parked=key, version=job.version + 1))


def called(job: Job) -> Change:
    """A parked job may try again: back into its line, at its old place."""
    return Change(msgspec.structs.replace(job, parked=None, version=job.version + 1))


def _json(value: object) -> str:
    return _encode(value).decode()

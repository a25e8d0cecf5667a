"""A job's log as a reader sees it: the stored events, and those that the job's row already tells.

`job.queued`, the opening events of the current attempt and the terminal event are not stored: the row holds their
content. When an attempt ends without ending the job, its opening events are stored: the row will tell of the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ropeway.domain.event import (
    CANCELLED,
    FAILED,
    OUTPUT_RESET,
    OUTPUT_RESUMED,
    QUEUED,
    QUEUED_AT,
    RETRYING,
    SNAPSHOT,
    STARTED,
    SUCCEEDED,
    Cursor,
    Event,
)
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State

__all__ = [
    "EventPage",
    "LogQuery",
    "opening_count",
    "opening_events",
    "page",
    "retrying_event",
    "terminal_event",
    "terminal_type",
]

_TERMINAL_TYPE = {State.succeeded: SUCCEEDED, State.failed: FAILED, State.cancelled: CANCELLED}

_encode = msgspec.json.Encoder().encode


class LogQuery(NamedTuple):
    """Which part of which job's log: at most `limit` events strictly after a cursor."""

    tenant: str
    job_id: str
    after: Cursor
    limit: int


class EventPage(msgspec.Struct, frozen=True, gc=False):
    """Events strictly after a cursor, in order. `ended`: nothing will ever come after the last of them."""

    events: tuple[Event, ...]
    ended: bool


def opening_count(runs: int) -> int:
    """How many events lease number `runs` writes: `job.started`, and from the second on what becomes of the output."""
    return 1 if runs == 1 else 2


def opening_events(job: Job) -> list[Event]:
    """The events with which the current attempt began, from its row; none when they are stored already."""
    if not job.started_epoch or job.started_at_ms is None:
        return []

    def event(n: int, type_: str, data: dict[str, object]) -> Event:
        at = job.started_at_ms or 0
        return Event(Cursor(job.started_epoch, n), type_, job.id, job.attempt, at, _json(data))

    events = [event(0, STARTED, {"attempt": job.attempt, "worker": job.worker})]
    if job.runs > 1:
        if job.options.resumable:
            events.append(
                event(1, OUTPUT_RESUMED, {"reason": "a new attempt begins; it goes on from what came before"})
            )
        else:
            events.append(event(1, OUTPUT_RESET, {"reason": "a new attempt begins; discard what came before"}))
    return events


def terminal_type(state: State) -> str:
    """The type of the event that ends a log in this state."""
    return _TERMINAL_TYPE[state]


def terminal_event(job: Job) -> Event:
    """The event that ends the log. Its `data` holds the result's facts; gateways put the whole job there."""
    data = {
        "output": None if job.output is None else msgspec.Raw(job.output.encode()),
        "error": None if job.error is None else msgspec.Raw(job.error.encode()),
        "usage": None if job.usage is None else msgspec.Raw(job.usage.encode()),
        "reason": job.cancel_reason,
    }
    kept = {name: value for name, value in data.items() if value is not None}
    return Event(job.last_cursor, _TERMINAL_TYPE[job.state], job.id, job.attempt, job.finished_at_ms or 0, _json(kept))


def retrying_event(
    job: Job,
    cursor: Cursor,
    at_ms: int,
    reason: str,
    run_at_ms: int | None,
    error: str | None,
    detail: str | None = None,
) -> Event:
    """The event that ends an attempt and not the job.

    `reason`: retry, released, snoozed, crashed or worker_lost; `detail` says of a snooze what it waits for.
    """
    data: dict[str, object] = {"reason": reason, "attempt": job.attempt, "run_at_ms": run_at_ms}
    if error is not None:
        data["error"] = msgspec.Raw(error.encode())
    if detail is not None:
        data["detail"] = detail
    return Event(cursor, RETRYING, job.id, job.attempt, at_ms, _json(data))


def page(job: Job, stored: Sequence[Event], after: Cursor, limit: int) -> EventPage:
    """At most `limit` events after `after`, out of the stored ones after it and what the row tells.

    `stored` holds the stored events after `after` in order, at least the first `limit` of them. A cursor beyond the
    end of the log is from a store that was rolled back since: the answer is one `snapshot`, never a silent skip.
    """
    if after > job.last_cursor:
        return EventPage((_snapshot(job),), job.state.terminal)
    if job.state.terminal and after == job.last_cursor:
        return EventPage((), True)
    derived = [event for event in _derived(job, after) if event.cursor > after]
    events = _merge(stored, derived)[:limit]
    return EventPage(tuple(events), bool(events) and job.state.terminal and events[-1].cursor == job.last_cursor)


def _derived(job: Job, after: Cursor) -> Iterable[Event]:
    """What the row tells, without making what a reader in mid-stream has long behind it."""
    if after < QUEUED_AT:
        yield Event(QUEUED_AT, QUEUED, job.id, 0, job.created_at_ms, _json({"queue": job.queue}))
    if after < Cursor(job.started_epoch, opening_count(job.runs)):
        yield from opening_events(job)
    if job.state.terminal:
        yield terminal_event(job)


def _merge(stored: Sequence[Event], derived: Sequence[Event]) -> list[Event]:
    if not derived:
        return list(stored)
    if not stored:
        return list(derived)
    return sorted([*stored, *derived], key=lambda event: event.cursor)


def _snapshot(job: Job) -> Event:
    data = {
        "state": job.state.value,
        "attempt": job.attempt,
        "output": None if job.output is None else msgspec.Raw(job.output.encode()),
    }
    at = job.finished_at_ms or job.started_at_ms or job.created_at_ms
    return Event(job.last_cursor, SNAPSHOT, job.id, job.attempt, at, _json(data))


def _json(data: object) -> str:
    return _encode(data).decode()

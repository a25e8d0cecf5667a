"""What must be true of event logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from ropeway.domain.event import (
    OUTPUT_DELTA,
    OUTPUT_RESET,
    QUEUED_AT,
    RETRYING,
    SNAPSHOT,
    STARTED,
    TERMINAL_TYPES,
    Cursor,
    Event,
)
from ropeway.domain.log import EventPage
from ropeway.testing.history.facts import Facts, Moment
from ropeway.testing.history.record import Violation

__all__ = [
    "attempts_are_named",
    "events_never_change",
    "logs_are_gapless",
    "logs_end_once",
    "outputs_are_kept",
    "readers_miss_nothing",
]


def logs_are_gapless(facts: Facts) -> Iterator[Violation]:
    """I5: a log begins at 0-1 and rises; in each epoch n counts from 0 without a gap; its end is the row's cursor."""
    rows = {change.job.id: change.job for moment in facts.moments for change in moment.changes}
    end = len(facts.moments)
    for job_id, log in facts.history.logs.items():
        cursors = [event.cursor for event in log]
        if not cursors or cursors[0] != QUEUED_AT:
            yield Violation("I5", end, f"the log of {job_id} does not begin at 0-1")
            continue
        for last, cursor in pairwise(cursors):
            next_here, next_epoch = Cursor(last.epoch, last.seq + 1), Cursor(cursor.epoch, 0)
            if cursor != next_here and not (cursor == next_epoch and cursor.epoch > last.epoch):
                yield Violation("I5", end, f"in the log of {job_id} {cursor} follows {last}")
        if cursors[-1] != rows[job_id].last_cursor:
            yield Violation("I5", end, f"the log of {job_id} ends at {cursors[-1]}, not {rows[job_id].last_cursor}")


def readers_miss_nothing(facts: Facts) -> Iterator[Violation]:
    """I5r: a page is what follows its cursor in the log, no less than there was, no more than asked for."""
    for moment in facts.moments:
        page = moment.only_answer("read")
        if isinstance(page, EventPage):
            yield from _page_faults(facts, moment, page)


def events_never_change(facts: Facts) -> Iterator[Violation]:
    """I5b: any two readings of one event id have equal content (Jepsen, Kafka)."""
    seen: dict[tuple[str, Cursor], Event] = {}
    for job_id, events in facts.history.observations:
        for event in events:
            if event.type == SNAPSHOT:
                continue
            first = seen.setdefault((job_id, event.cursor), event)
            if first != event:
                yield Violation("I5b", len(facts.moments), f"{job_id} {event.id} was {first}, then {event}")


def attempts_are_named(facts: Facts) -> Iterator[Violation]:
    """I6: each event names its attempt; a start counts one up, and only a release or a snooze gives it back."""
    for job_id, log in facts.history.logs.items():
        attempt = 0
        for event in log:
            attempt += event.type == STARTED
            if event.attempt != attempt:
                text = f"{job_id} {event.id} {event.type} names attempt {event.attempt}, not {attempt}"
                yield Violation("I6", len(facts.moments), text)
            if event.type == RETRYING and msgspec.json.decode(event.data)["reason"] in ("released", "snoozed"):
                attempt -= 1


def logs_end_once(facts: Facts) -> Iterator[Violation]:
    """I7: an ended job has one terminal event, of its state, the last; one that has not ended has none."""
    rows = {change.job.id: change.job for moment in facts.moments for change in moment.changes}
    for job_id, log in facts.history.logs.items():
        ends = [event.type for event in log if event.type in TERMINAL_TYPES]
        state = rows[job_id].state
        expected = [f"job.{state}"] if state.terminal else []
        if ends != expected or (expected and log[-1].type not in TERMINAL_TYPES):
            yield Violation("I7", len(facts.moments), f"{job_id} is {state}, its log ends with {ends}")


def outputs_are_kept(facts: Facts) -> Iterator[Violation]:
    """I13: a job that ends with nobody to commit it offers the output that its log holds since the last reset."""
    for moment in facts.moments:
        if moment.step.only is None or moment.step.only.call.method not in ("rescue", "close", "cancel"):
            continue
        for old, new in moment.changes:
            if new is None or old is None or old.state.terminal or not new.state.terminal:
                continue
            held = _items(facts.history.logs.get(new.id, ()))
            told = [] if new.output is None else msgspec.json.decode(new.output)
            if told != held:
                yield Violation("I13", moment.step.number, f"{new.id} ended with {told}, its log holds {held}")


def _items(log: Sequence[Event]) -> list[object]:
    """The output of a log whose items are no strings."""
    items: list[object] = []
    for event in log:
        if event.type == OUTPUT_RESET:
            items.clear()
        elif event.type == OUTPUT_DELTA:
            items.append(msgspec.json.decode(event.data)["delta"])
    return items


def _page_faults(facts: Facts, moment: Moment, page: EventPage) -> Iterator[Violation]:
    assert moment.only is not None
    _, job_id, after, limit = moment.only.call.args
    job, log = moment.before.jobs[job_id], facts.history.logs.get(job_id, ())
    if after > job.last_cursor:
        if [event.type for event in page.events] != [SNAPSHOT]:
            yield Violation("I5r", moment.step.number, f"{job_id} after {after}, which is no cursor of it: {page}")
        return
    expected = _following(log, after, job.last_cursor)[:limit]
    if list(page.events) != expected:
        told, due = ([event.id for event in events] for events in (page.events, expected))
        yield Violation("I5r", moment.step.number, f"{job_id} after {after}: a reader got {told}, not {due}")
    at_end = page.events[-1].cursor == job.last_cursor if page.events else after == job.last_cursor
    if page.ended != (job.state.terminal and at_end):
        yield Violation("I5r", moment.step.number, f"{job_id} after {after}: ended is {page.ended}")


def _following(log: Sequence[Event], after: Cursor, end: Cursor) -> list[Event]:
    return [event for event in log if after < event.cursor <= end]

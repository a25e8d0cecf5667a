"""A job's log as a reader sees it: what is stored, and what the row tells."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ropeway.domain.event import START, Cursor, Event
from ropeway.domain.job import DEFAULT_OPTIONS, Job, JobOptions
from ropeway.domain.lifecycle import State
from ropeway.domain.log import EventPage, opening_count, opening_events, page, retrying_event, terminal_event
from ropeway.domain.rank import Priority

QUEUED = Job(
    "job_1", "acme", "chat", "echo", "{}", DEFAULT_OPTIONS, Priority.normal, State.queued, 0.0, 1, 0, 0, 0, 0, 2, 0, 100
)
RUNNING = msgspec.structs.replace(
    QUEUED,
    state=State.running,
    attempt=1,
    runs=1,
    epoch=200,
    seq=3,
    started_epoch=200,
    started_at_ms=200,
    worker="w",
)
STORED = [Event(Cursor(200, n), "log", "job_1", 1, 210, str(n)) for n in (1, 2)]


def ended(state: State, **fields: Any) -> Job:
    return msgspec.structs.replace(RUNNING, state=state, seq=4, finished_at_ms=300, **fields)


@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize("runs", [1, 2])
def test_openings(runs: int, resumable: bool) -> None:
    """An attempt opens with its start, every later one tells of the output too; `opening_count` says how many."""
    types = ["job.started", "output.resumed" if resumable else "output.reset"][:runs]
    job = msgspec.structs.replace(RUNNING, runs=runs, options=JobOptions(resumable=resumable))
    events = opening_events(job)
    assert [event.type for event in events] == types
    assert [event.cursor for event in events] == [Cursor(200, n) for n in range(opening_count(runs))]


def test_an_opening_that_is_stored_is_not_told_twice() -> None:
    """A row whose attempt's opening is stored, or that never began one, tells of none."""
    assert opening_events(QUEUED) == []
    assert opening_events(msgspec.structs.replace(RUNNING, started_epoch=0)) == []
    assert opening_events(msgspec.structs.replace(RUNNING, started_at_ms=None)) == []


@pytest.mark.parametrize(
    ("state", "fields", "data"),
    [
        (State.succeeded, {"output": '{"a":1}', "usage": "2"}, {"output": {"a": 1}, "usage": 2}),
        (State.failed, {"error": '{"code":"x"}', "output": '"half"'}, {"error": {"code": "x"}, "output": "half"}),
        (State.cancelled, {"cancel_reason": "no"}, {"reason": "no"}),
        (State.cancelled, {}, {}),
    ],
)
def test_the_last_event_tells_the_result(state: State, fields: dict[str, Any], data: dict[str, Any]) -> None:
    """The terminal event is named after the state and carries what there is of output, error, usage and reason."""
    event = terminal_event(ended(state, **fields))
    assert (event.type, event.cursor, event.at_ms) == (f"job.{state}", Cursor(200, 3), 300)
    assert json.loads(event.data) == data


@pytest.mark.parametrize(("error", "told"), [(None, {}), ('{"code":"x"}', {"error": {"code": "x"}})])
def test_retrying_tells_why_and_when(error: str | None, told: dict[str, Any]) -> None:
    """The event that ends an attempt and not the job tells why, when the next may start, and the error if any."""
    event = retrying_event(RUNNING, Cursor(200, 3), 250, "retry", 900, error)
    assert (event.type, event.attempt, event.at_ms) == ("job.retrying", 1, 250)
    assert json.loads(event.data) == {"reason": "retry", "attempt": 1, "run_at_ms": 900, **told}


def test_stored_and_derived_events_are_one_log() -> None:
    """A reader cannot tell what is stored and what the row tells: one list, in the order of the ids."""
    events = page(ended(State.succeeded), STORED, START, 100).events
    assert [event.id for event in events] == ["0-1", "200-0", "200-1", "200-2", "200-3"]


def test_a_log_of_derived_events_alone() -> None:
    """A job that emitted nothing has a log all the same."""
    job = msgspec.structs.replace(RUNNING, seq=1)
    assert [event.type for event in page(job, [], START, 100).events] == ["job.queued", "job.started"]


def test_a_log_of_stored_events_alone() -> None:
    """Past all that the row tells, the stored events are the page."""
    assert page(RUNNING, STORED, Cursor(200, 0), 100) == EventPage(tuple(STORED), ended=False)


@pytest.mark.parametrize(("limit", "is_end"), [(1, False), (4, False), (5, True), (6, True)])
def test_a_page_says_when_it_is_the_last(limit: int, is_end: bool) -> None:
    """`ended` is told with the terminal event, not before."""
    read = page(ended(State.succeeded), STORED[:limit], START, limit)
    assert (len(read.events), read.ended) == (min(limit, 5), is_end)


def test_nothing_follows_the_end() -> None:
    """After the terminal event a page is empty and the last; after a live log's end it is empty and not the last."""
    assert page(ended(State.failed), [], Cursor(200, 3), 10) == EventPage((), ended=True)
    assert page(RUNNING, [], Cursor(200, 2), 10) == EventPage((), ended=False)


@pytest.mark.parametrize(
    ("job", "at_ms", "data"),
    [
        (QUEUED, 100, {"state": "queued", "attempt": 0, "output": None}),
        (RUNNING, 200, {"state": "running", "attempt": 1, "output": None}),
        (ended(State.succeeded, output="7"), 300, {"state": "succeeded", "attempt": 1, "output": 7}),
    ],
)
def test_a_foreign_cursor_gets_a_snapshot(job: Job, at_ms: int, data: dict[str, Any]) -> None:
    """A cursor beyond the log is answered with the job as it stands, at its last event's id."""
    read = page(job, [], Cursor(999, 0), 10)
    (event,) = read.events
    assert (event.type, event.cursor, event.at_ms) == ("snapshot", job.last_cursor, at_ms)
    assert json.loads(event.data) == data
    assert read.ended is job.state.terminal

"""The checker of the fault tests finds what it is there for: a whole story has no finding, each broken one has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from story import Order, Seen, Story
from verdict import Final, findings

from ropeway.domain.event import OUTPUT_DELTA, OUTPUT_RESET, QUEUED, RETRYING, STARTED, SUCCEEDED, Cursor, Event
from ropeway.domain.job import DEFAULT_TENANT, Job, JobOptions
from ropeway.domain.lifecycle import State
from ropeway.domain.rank import Priority

KILLED = 41
WORD = "ab"


class Told:
    """A job that lost its first worker, process 41, to kill -9, and ended at its second, process 42; and one reader."""

    def __init__(self, folder: Path) -> None:
        self.order = Order("key-0", "spell", WORD)
        self.story = Story(folder / "history.jsonl")
        self.story.asked(self.order)
        self.story.promise(self.order, "job_1")
        self.log = [
            event("0-1", QUEUED, 0),
            event("5-0", STARTED, 1, worker=f"host-{KILLED}"),
            event("5-1", OUTPUT_DELTA, 1, delta="a"),
            event("9-0", RETRYING, 1, reason="worker_lost"),
            event("12-0", STARTED, 2, worker="host-42"),
            event("12-1", OUTPUT_RESET, 2),
            event("12-2", OUTPUT_DELTA, 2, delta="a"),
            event("12-3", OUTPUT_DELTA, 2, delta="b"),
            event("12-4", SUCCEEDED, 2),
        ]
        self.job = a_job()
        self.runs = [f"job_1 1 {KILLED}", "job_1 2 42"]
        self.stored = 1
        self.killed = {KILLED}
        self.seen = self.story.reader("job_1")
        self.seen += [Seen(e.id, e.type, {"data": json.loads(e.data)}) for e in self.log]

    def findings(self) -> list[str]:
        finals = {"job_1": Final(self.job, self.log)}
        return findings(self.story, finals, self.stored, self.runs, self.killed)


def event(id_: str, type_: str, attempt: int, **data: Any) -> Event:
    return Event(Cursor.parse(id_), type_, "job_1", attempt, 1, json.dumps(data))


def a_job(**changes: Any) -> Job:
    job = Job(
        id="job_1",
        tenant=DEFAULT_TENANT,
        queue="default",
        task="spell",
        input="{}",
        options=JobOptions(),
        priority=Priority.normal,
        state=State.succeeded,
        rank=0.0,
        version=7,
        attempt=2,
        crashes=1,
        runs=2,
        epoch=12,
        seq=5,
        started_epoch=0,
        created_at_ms=1,
        output=json.dumps(WORD),
    )
    return msgspec.structs.replace(job, **changes)


@pytest.fixture(name="told")
def make_told(tmp_path: Path) -> Iterator[Told]:
    told = Told(tmp_path)
    yield told
    told.story.close()


def test_a_story_that_kept_every_promise_has_no_finding(told: Told) -> None:
    """Nothing is found where nothing is wrong."""
    assert told.findings() == []


def _lose(told: Told) -> None:
    told.story.promise(Order("key-1", "spell", "x"), "job_2")


def _never_answer(told: Told) -> None:
    told.story.asked(Order("key-1", "spell", "x"))


def _give_two_jobs(told: Told) -> None:
    told.story.promise(told.order, "job_3")


def _store_two(told: Told) -> None:
    told.stored = 2


def _not_end(told: Told) -> None:
    told.job = a_job(state=State.running)


def _mix_results(told: Told) -> None:
    told.job = a_job(output='"zz"')


def _end_twice(told: Told) -> None:
    told.log.append(event("12-5", SUCCEEDED, 2))


def _gap(told: Told) -> None:
    del told.log[6]


def _stream_twice(told: Told) -> None:
    told.log[7] = event("12-3", OUTPUT_DELTA, 2, delta="ab")


def _burn(told: Told) -> None:
    told.killed = set()


def _burn_unseen(told: Told) -> None:
    told.job = a_job(crashes=2, attempt=3)


def _run_unleased(told: Told) -> None:
    told.runs.append("job_1 2 43")


def _show_twice(told: Told) -> None:
    told.seen.insert(3, told.seen[2])


def _skip(told: Told) -> None:
    del told.seen[6]


def _change(told: Told) -> None:
    told.seen[2] = Seen("5-1", OUTPUT_DELTA, {"data": {"delta": "z"}})


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_lose, "job_2 of key-1 is lost"),
        (_never_answer, "key-1 was never answered"),
        (_give_two_jobs, "was given job_1 and job_3"),
        (_store_two, "2 are stored"),
        (_not_end, "is running"),
        (_mix_results, "and not 'ab'"),
        (_end_twice, "terminal events at"),
        (_gap, "12-3 after 12-1"),
        (_stream_twice, "streamed 'aab'"),
        (_burn, "which was not killed"),
        (_burn_unseen, "counts 2 crashes"),
        (_run_unleased, "ran 3 times on 2 leases"),
        (_show_twice, "['5-1'] twice"),
        (_skip, "['12-2'] never"),
        (_change, "was output.delta"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "found",
)
def test_every_broken_promise_is_found(told: Told, spoil: Callable[[Told], None], found: str) -> None:
    """Each in words that say which."""
    spoil(told)
    assert any(found in finding for finding in told.findings()), told.findings()

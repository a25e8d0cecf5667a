"""What becomes of a job: the rules refuse to break the state table."""

from __future__ import annotations

import msgspec
import pytest

from ropeway.domain.change import (
    asked_to_stop,
    committed,
    ends_unheard,
    overdue,
    promoted,
    with_output,
    woken,
    worker_lost,
)
from ropeway.domain.job import Job, JobOptions, NewJob, job_of
from ropeway.domain.lease import Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.webhook import Webhook


def job(state: State) -> Job:
    return msgspec.structs.replace(
        job_of(NewJob("job_1", "acme", "chat", "echo", "{}", options=JobOptions(queue_timeout_s=1)), 0.0, 0),
        state=state,
    )


def test_an_impossible_change_stops() -> None:
    """A change without an arrow in the state table raises AssertionError: a bug must stop, not go on."""
    with pytest.raises(AssertionError, match="no arrow from queued to queued"):
        promoted(job(State.queued))
    with pytest.raises(AssertionError, match="no arrow from queued to succeeded"):
        committed(job(State.queued), Outcome("succeeded"), 0)
    with pytest.raises(AssertionError, match="no arrow from succeeded to failed"):
        overdue(job(State.succeeded), 0)


def test_a_lost_worker_is_fenced_before_anyone_takes_over() -> None:
    """The attempt of a lost worker ends under a higher epoch and without a token, at no cost to the retries."""
    running = msgspec.structs.replace(job(State.running), epoch=7_000, token="t", attempt=1, runs=1)
    again = worker_lost(running, 5_000).job
    assert (again.state, again.epoch, again.token, again.crashes) == (State.queued, 7_001, None, 1)
    assert not again.attempts_spent


@pytest.mark.parametrize(
    ("progress", "detail", "shown"),
    [
        (None, "the batch", '{"message":"the batch"}'),
        ('{"fraction":0.5,"message":"old"}', "the batch", '{"fraction":0.5,"message":"the batch"}'),
        ("17", "the batch", '{"message":"the batch"}'),
        ('{"fraction":0.5}', None, '{"fraction":0.5}'),
    ],
)
def test_a_snoozed_job_shows_what_it_waits_for(progress: str | None, detail: str | None, shown: str) -> None:
    """As its progress, beside how far it was; a snooze that gives no reason leaves that alone."""
    running = msgspec.structs.replace(job(State.running), epoch=7_000, attempt=1, runs=1, progress=progress)
    after = committed(running, Outcome("snooze", delay_ms=1000, detail=detail), 5_000).job
    assert (after.state, after.run_at_ms, after.attempt, after.progress) == (State.scheduled, 6_000, 0, shown)


def test_a_waking_is_for_those_who_wait() -> None:
    """A scheduled job is queued, with its time in the queue from now; a running one is marked once, in its epoch."""
    held = msgspec.structs.replace(job(State.scheduled), run_at_ms=900_000, queue_deadline_ms=901_000)
    queued = woken(held, 5_000)
    assert queued is not None
    assert (queued.job.state, queued.job.run_at_ms, queued.job.queue_deadline_ms) == (State.queued, None, 6_000)
    running = msgspec.structs.replace(job(State.running), epoch=7_000, attempt=1, runs=1)
    marked = woken(running, 5_000)
    assert marked is not None
    assert (marked.job.state, marked.job.woken_epoch, marked.events) == (State.running, 7_000, ())
    assert woken(marked.job, 5_001) is None
    assert committed(marked.job, Outcome("snooze", delay_ms=1000), 5_000).job.state is State.queued
    assert committed(marked.job, Outcome("release", delay_ms=1000), 5_000).job.state is State.scheduled
    assert woken(asked_to_stop(running, None, 5_000).job, 5_000) is None
    assert [woken(job(state), 5_000) for state in (State.queued, State.succeeded)] == [None, None]


def test_the_end_that_nobody_committed_is_known() -> None:
    """Only of a job that ran, ended, and was given no output, the log is asked; its delivery tells the output too."""
    hooked = JobOptions(max_crashes=1, webhook=Webhook("https://hooks.example/"))
    running = msgspec.structs.replace(job(State.running), attempt=1, runs=1, options=hooked)
    lost = worker_lost(running, 5_000)
    assert ends_unheard(lost)
    told = with_output(lost, '"half"')
    assert told.delivery is not None
    assert (told.job.output, msgspec.json.decode(told.delivery.input)["data"]["output"]) == ('"half"', "half")
    assert not ends_unheard(told)
    assert not ends_unheard(asked_to_stop(job(State.queued), None, 5_000))
    assert not ends_unheard(asked_to_stop(running, None, 5_000))

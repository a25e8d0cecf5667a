"""What becomes of a job: the rules refuse to break the state table."""

from __future__ import annotations

import msgspec
import pytest

from ropeway.domain.change import committed, overdue, promoted, worker_lost
from ropeway.domain.job import Job, JobOptions, NewJob, job_of
from ropeway.domain.lease import Outcome
from ropeway.domain.lifecycle import State


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

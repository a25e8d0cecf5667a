"""The error tree: what each is called, tells and allows."""

from __future__ import annotations

import inspect

import msgspec
import pytest

from ropeway.domain import errors
from ropeway.domain.errors import (
    EngineUnavailable,
    Fail,
    Fault,
    InputInvalid,
    InvalidRequest,
    JobCancelled,
    JobError,
    JobFailed,
    JobNotFound,
    JobNotRunning,
    OutcomeUnknown,
    QueueFull,
    RateLimited,
    RetryAfter,
    RopewayError,
    TaskFault,
    TooManyQueued,
    WaitTimeout,
)

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, RopewayError)]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_stands_in_the_tree(error: type[RopewayError]) -> None:
    """Each error is public, has a message for humans in its docstring, and stands in the picture on top."""
    assert error.__name__ in errors.__all__
    assert (error.__doc__ or "").strip()
    assert error.__name__ in (errors.__doc__ or "")


def test_codes_are_one_errors_own() -> None:
    """A code tells one error, but for the faults of tasks, which name their own."""
    codes = [error.code for error in CLASSES if not issubclass(error, TaskFault)]
    assert len(codes) == len(set(codes))


def test_a_message_is_the_docstring_unless_told() -> None:
    """An error without a detail says what its class says."""
    assert (str(JobNotFound()), JobNotFound().detail) == ("No such job.", "No such job.")
    assert str(JobNotFound("job_1 is not there")) == "job_1 is not there"


def test_what_may_succeed_later_says_so() -> None:
    """Only errors of room, reach and patience are worth the same call again."""
    retryable = {error for error in CLASSES if error.retryable}
    room = {TooManyQueued, RateLimited, QueueFull}
    assert retryable == room | {EngineUnavailable, OutcomeUnknown, WaitTimeout, JobNotRunning}


def test_an_unknown_outcome_is_an_unavailable_engine() -> None:
    """Who only knows that the engine is away may treat both alike."""
    assert issubclass(OutcomeUnknown, EngineUnavailable)
    assert OutcomeUnknown.code != EngineUnavailable.code


def test_errors_hold_their_facts() -> None:
    """The facts are fields, not words to be parsed."""
    fault = Fault("/n", "not a number")
    full, own = QueueFull("chat", 7), TooManyQueued("chat", 3)
    assert InvalidRequest("bad", "limit").param == "limit"
    assert InputInvalid("bad", (fault,)).faults == (fault,)
    assert (full.queue, full.depth, str(full)) == ("chat", 7, "queue 'chat' holds 7 jobs, as many as it may")
    assert (own.queue, own.depth) == ("chat", 3)
    assert "3 jobs waiting in queue 'chat'" in str(own)


def test_a_failed_job_tells_its_error() -> None:
    """What `result()` raises names job, code and message, and holds the recorded error."""
    error = JobError("timeout", "took too long")
    raised = JobFailed("job_1", error)
    assert (str(raised), raised.job_id, raised.error) == ("job_1 failed: timeout: took too long", "job_1", error)


@pytest.mark.parametrize(
    ("reason", "text"), [(None, "job_1 was cancelled"), ("no need", "job_1 was cancelled: no need")]
)
def test_a_cancelled_job_tells_its_reason(reason: str | None, text: str) -> None:
    """The reason is told when there is one."""
    raised = JobCancelled("job_1", reason)
    assert (str(raised), raised.job_id, raised.reason) == (text, "job_1", reason)


def test_a_task_steers_what_happens_next() -> None:
    """A task's fault has a code of its own and any facts; a wait is told in words unless the task says more."""
    fault = Fail("no such model", code="model_missing", model="m")
    assert (fault.fault_code, fault.facts, str(fault)) == ("model_missing", {"model": "m"}, "no such model")
    asked = RetryAfter(1.50)
    assert (asked.after_s, str(asked), asked.fault_code) == (1.5, "asked to be tried again in 1.5 s", "task_error")
    assert (str(RetryAfter(2, "busy", code="busy")), RetryAfter(2, code="busy").fault_code) == ("busy", "busy")


def test_a_recorded_error_is_small() -> None:
    """What is at its default is not stored."""
    assert msgspec.json.encode(JobError("x", "y")) == b'{"code":"x","message":"y"}'

"""What an attempt came to: from what its code returned or raised, and from why it was asked to stop."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path
from types import TracebackType

import msgspec

from ropeway.domain.errors import Fail, InputInvalid, JobError, RetryAfter, TaskFault
from ropeway.domain.lease import Assignment, Outcome
from ropeway.domain.retry import backoff_s
from ropeway.runtime.attempt import Attempt, Reason
from ropeway.runtime.coding import OutputInvalid
from ropeway.runtime.patience import Jitter

__all__ = ["judge_failure", "judge_unknown_task"]

FRAMES = 20  # of a traceback: what is deeper is seldom the cause
TRACEBACK_LIMIT = 8_192  # characters; it is stored with the job and sent to whoever asks
MESSAGE_LIMIT = 4_096

_ROOT = Path(__file__).parent.parent
_OURS = (str(_ROOT / "runtime"), str(_ROOT / "operations"))


def judge_unknown_task(assignment: Assignment) -> Outcome:
    """No task of this name is declared in the worker's application."""
    message = f"this worker has no task '{assignment.task}': serve its queue with the application that declares it"
    return _failed(JobError("task_not_found", message, attempt=assignment.attempt))


def judge_failure(attempt: Attempt, error: BaseException, partial: str | None, jitter: Jitter) -> Outcome:
    """The outcome of an attempt that ended by an exception. `partial` is the output that there is so far, as JSON.

    Why it was asked to stop counts before what it raised: on a shutdown the job goes back to its place, and only a
    client's own cancel makes it cancelled.
    """
    match attempt.reason:
        case Reason.cancel:
            return Outcome("cancelled", output=partial)
        case Reason.drain | Reason.lost:
            return Outcome("release")
        case Reason.timeout:
            timeout_s = attempt.assignment.options.timeout_s or 0.0
            return _again(attempt.assignment, _error("timeout", f"ran longer than {timeout_s:g} s"), partial, jitter)
    return _judge_error(attempt.assignment, error, partial, jitter)


def _judge_error(assignment: Assignment, error: BaseException, partial: str | None, jitter: Jitter) -> Outcome:
    match error:
        case RetryAfter():
            return _again(assignment, _task_error(error, error.fault_code), partial, jitter, error.after_s)
        case Fail():
            return _failed(_task_error(error, error.fault_code, retryable=False), assignment, partial)
        case InputInvalid():
            return _failed(_error("input_invalid", error.detail, retryable=False), assignment)
        case OutputInvalid():
            return _failed(_error("output_invalid", str(error), retryable=False), assignment, partial)
        case MemoryError():
            return _again(assignment, _task_error(error, "out_of_memory"), partial, jitter)
        case asyncio.CancelledError():
            return _again(assignment, _error("task_error", "the task cancelled itself"), partial, jitter)
        case TaskFault():
            return _again(assignment, _task_error(error, error.fault_code), partial, jitter)
        case _:
            return _again(assignment, _task_error(error, "task_error"), partial, jitter)


def _again(
    assignment: Assignment, error: JobError, partial: str | None, jitter: Jitter, after_s: float | None = None
) -> Outcome:
    """Try again by the job's policy, or fail when its attempts are spent. Crashes have a budget of their own."""
    retry = assignment.options.retry
    tried = assignment.attempt - assignment.crashes
    if tried >= retry.max_attempts:
        return _failed(error, assignment, partial)
    delay_s = backoff_s(retry, tried, jitter(), after_s)
    error = msgspec.structs.replace(error, attempt=assignment.attempt)
    return Outcome("retry", partial, _json(error), delay_ms=round(delay_s * 1000))


def _failed(error: JobError, assignment: Assignment | None = None, partial: str | None = None) -> Outcome:
    if assignment is not None:
        error = msgspec.structs.replace(error, attempt=assignment.attempt)
    return Outcome("failed", partial, _json(error))


def _error(code: str, message: str, *, retryable: bool = True) -> JobError:
    return JobError(code, _plain(message)[:MESSAGE_LIMIT], retryable)


def _task_error(error: BaseException, code: str, *, retryable: bool = True) -> JobError:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error) or kind.__name__
    except Exception:
        message = kind.__name__  # an exception that cannot even say what it is
    return JobError(code, _plain(message)[:MESSAGE_LIMIT], retryable, type=name, traceback=_traceback(error))


def _traceback(error: BaseException) -> str:
    """The user's part of it: the last frames, without ours at the top."""
    lines = traceback.TracebackException(
        type(error), error, _users(error.__traceback__), limit=-FRAMES, compact=True
    ).format()
    text = _plain("".join(lines))
    if len(text) <= TRACEBACK_LIMIT:
        return text
    half = TRACEBACK_LIMIT // 2
    return f"{text[:half]}\n  ... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _users(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def _plain(text: str) -> str:
    """Without lone surrogates, which no JSON can carry."""
    return text.encode("utf-8", "replace").decode()


def _json(error: JobError) -> str:
    return msgspec.json.encode(error).decode()

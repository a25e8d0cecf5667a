"""What an attempt came to: from what its code returned or raised, and from why it was asked to stop."""

from __future__ import annotations

import msgspec

from ropeway.domain.errors import JobError
from ropeway.domain.job import JobOptions
from ropeway.domain.lease import Assignment, Outcome
from ropeway.domain.retry import backoff_s
from ropeway.runtime.attempt import Attempt, Reason
from ropeway.runtime.patience import Jitter
from ropeway.runtime.verdict import plain_error, verdict_of

__all__ = ["judge_failure", "judge_unknown_task", "judge_unmet"]


def judge_unknown_task(assignment: Assignment) -> Outcome:
    """No task of this name is declared in the worker's application."""
    message = f"this worker has no task '{assignment.task}': serve its queue with the application that declares it"
    return _failed(JobError("task_not_found", message, attempt=assignment.attempt))


def judge_unmet(assignment: Assignment, lacking: tuple[str, ...]) -> Outcome:
    """The worker lacks labels that the job's task needs."""
    message = (
        f"task '{assignment.task}' needs {' and '.join(lacking)}, which this worker has not: submit it to its own "
        f"queue, and not to '{assignment.queue}'"
    )
    return _failed(JobError("needs_unmet", message, attempt=assignment.attempt))


def judge_failure(attempt: Attempt, error: BaseException, partial: str | None, jitter: Jitter) -> Outcome:
    """The outcome of an attempt that ended by an exception. `partial` is the output that there is so far, as JSON.

    Why it was asked to stop counts before what it raised: on a shutdown the job goes back to its place, and only a
    client's own cancel makes it cancelled.
    """
    if attempt.snooze is not None and attempt.reason is not Reason.cancel:
        return Outcome("snooze", partial, delay_ms=attempt.snooze.delay_ms, detail=attempt.snooze.detail)
    match attempt.reason:
        case Reason.cancel:
            return Outcome("cancelled", output=partial)
        case Reason.drain | Reason.lost:
            return Outcome("release", partial)  # kept if the job turns out to be cancelled
        case Reason() as reason:
            return _again(attempt.assignment, _out_of_time(attempt.assignment.options, reason), partial, jitter)
    return _judge_error(attempt.assignment, error, partial, jitter)


def _out_of_time(options: JobOptions, reason: Reason) -> JobError:
    """Each of the times has a code of its own; a repeat may do better, whichever it was."""
    match reason:
        case Reason.first_output_timeout:
            message = f"no output within {options.first_output_timeout_s:g} s"
        case Reason.output_timeout:
            message = f"no further output for {options.output_timeout_s:g} s"
        case _:
            message = f"ran longer than {options.timeout_s or 0.0:g} s"
    return plain_error(reason.value, message)


def _judge_error(assignment: Assignment, error: BaseException, partial: str | None, jitter: Jitter) -> Outcome:
    verdict = verdict_of(error)
    kept = partial if verdict.keeps_output else None
    if verdict.crashed:
        return _crashed(assignment, verdict.error, kept, jitter)
    if verdict.final:
        return _failed(verdict.error, assignment, kept)
    return _again(assignment, verdict.error, kept, jitter, verdict.after_s)


def _crashed(assignment: Assignment, error: JobError, partial: str | None, jitter: Jitter) -> Outcome:
    """Its process died under it: the engine counts that apart from the retries, and ends the job at `max_crashes`."""
    delay_s = backoff_s(assignment.options.retry, assignment.crashes + 1, jitter())
    error = msgspec.structs.replace(error, attempt=assignment.attempt)
    return Outcome("crashed", partial, _json(error), delay_ms=round(delay_s * 1000))


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


def _json(error: JobError) -> str:
    return msgspec.json.encode(error).decode()

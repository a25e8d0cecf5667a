"""How a job that did not succeed is told on the OpenAI routes: as a status on a call, as an error within a stream.

A retry of the same call would find the same job, so `x-should-retry` is false for all of these.
"""

from __future__ import annotations

import msgspec

from ropeway.domain.errors import JobCancelled, JobError
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.serving.problems import Problem, mirror_of, problem_of, problem_reply, recorded_problem
from ropeway.serving.replies import Headers, Reply

__all__ = ["failed", "failure", "failure_of_data", "failure_reply", "recorded_error"]

_STATUS = {
    "input_invalid": 400,
    "provider_rate_limited": 429,
    "provider_error": 502,
    "timeout": 504,
    "queue_timeout": 504,
    "first_output_timeout": 504,
    "output_timeout": 504,
}


class _Ending(msgspec.Struct, frozen=True):
    """What a terminal event tells of a job that did not succeed."""

    error: JobError | None = None
    reason: str | None = None


_decode_ending = msgspec.json.Decoder(_Ending).decode
_decode_error = msgspec.json.Decoder(JobError).decode


def recorded_error(job: Job) -> JobError:
    """The error that a failed job has on record."""
    return JobError("task_error", f"{job.id} failed") if job.error is None else _decode_error(job.error)


def failure(job: Job) -> Problem:
    """The problem that a job's failure, or its cancelling, is to whoever waits for its answer."""
    if job.state is State.cancelled:
        return _cancelled(job.id, job.cancel_reason)
    return failed(job.id, recorded_error(job))


def failure_of_data(job_id: str, data: str, *, cancelled: bool) -> Problem:
    """The same from the data of a job's last event."""
    ending = _decode_ending(data)
    if cancelled:
        return _cancelled(job_id, ending.reason)
    return failed(job_id, ending.error or JobError("task_error", f"{job_id} failed"))


def failure_reply(problem: Problem, headers: Headers = ()) -> Reply:
    return problem_reply(problem, headers)


def failed(job_id: str, error: JobError) -> Problem:
    """The problem that this recorded error is."""
    status = _STATUS.get(error.code, 500)
    problem = recorded_problem(job_id, error)
    return msgspec.structs.replace(problem, status=status, error=mirror_of(status, error.message, error.code))


def _cancelled(job_id: str, reason: str | None) -> Problem:
    return problem_of(JobCancelled(job_id, reason))

"""Every error that Ropeway raises or records, as one tree.

    RopewayError
    ├── InvalidRequest              400  the request itself is malformed
    ├── Unauthenticated             401  no key, or none that opens anything
    ├── Forbidden                   403  the key, the page or the host may not do that
    │   └── PriorityNotAllowed      403  nor this high
    ├── InputInvalid                422  the input does not fit the task's types
    ├── JobNotFound TaskNotFound    404
    ├── JobPurged                   410
    ├── JobLive JobNotRetryable     409
    ├── JobNotRunning JobEnded      409  what is sent up to a job reaches none, now or ever
    ├── TooManyInputs               409
    ├── IdempotencyKeyReused        422
    ├── PayloadTooLarge             413
    ├── KeyNotFound                 404
    ├── RateLimited TooManyQueued   429  this tenant's limit
    ├── QueueFull                   503  our capacity
    ├── EngineUnavailable           503  nothing is known to have happened: try again
    │   └── OutcomeUnknown          503  it may have happened: retry with the same idempotency key
    ├── LeaseLost                   the attempt is no longer ours; nothing was written
    ├── WaitTimeout                 the caller stopped waiting; the job goes on
    ├── JobFailed JobCancelled      what `result()` raises for a job that ended so
    └── TaskFault                   raised by user code to steer what happens next
        ├── Fail                    do not retry
        │   ├── StepInvalid         a step's name or result cannot be kept
        │   └── ChildFailed         a job that the task waited for did not succeed
        └── RetryAfter              retry, not before so many seconds

A class's docstring is the message for humans, `code` is for machines, `retryable` tells a client whether the same
call may succeed later; the fields hold the facts.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

__all__ = [
    "ChildFailed",
    "EngineUnavailable",
    "Fail",
    "Fault",
    "Forbidden",
    "IdempotencyKeyReused",
    "InputInvalid",
    "InvalidRequest",
    "JobCancelled",
    "JobEnded",
    "JobError",
    "JobFailed",
    "JobLive",
    "JobNotFound",
    "JobNotRetryable",
    "JobNotRunning",
    "JobPurged",
    "KeyNotFound",
    "LeaseLost",
    "OutcomeUnknown",
    "PayloadTooLarge",
    "PriorityNotAllowed",
    "QueueFull",
    "RateLimited",
    "RetryAfter",
    "RopewayError",
    "StepInvalid",
    "TaskFault",
    "TaskNotFound",
    "TooManyInputs",
    "TooManyQueued",
    "Unauthenticated",
    "WaitTimeout",
]


class Fault(msgspec.Struct, frozen=True):
    """One fault in an input: a JSON pointer (RFC 6901) and what is wrong there."""

    pointer: str
    detail: str


class JobError(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an attempt, or a job, failed: the recorded form.

    `code` is one of task_error, timeout, queue_timeout, first_output_timeout, output_timeout, worker_lost,
    out_of_memory, provider_error, provider_rate_limited, cancelled, input_invalid, task_not_found, output_invalid,
    step_invalid, snoozed_too_often, process_crashed, needs_unmet, dependency_failed, child_failed, job_gone.

    `signal` by name, or else `exit_code`, tells how the process of an isolated task died.
    """

    code: str
    message: str
    retryable: bool = False
    attempt: int = 0
    type: str | None = None
    traceback: str | None = None
    signal: str | None = None
    exit_code: int | None = None


class RopewayError(Exception):
    """Something went wrong in Ropeway."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    retry_after_s: float | None = None  # how long to wait before the same call, where whoever refused it said so

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(self.detail)


class InvalidRequest(RopewayError):
    """The request is malformed."""

    code = "invalid_request"

    def __init__(self, detail: str | None = None, param: str | None = None) -> None:
        super().__init__(detail)
        self.param = param


class Unauthenticated(RopewayError):
    """A key is asked for here, and none was shown that opens anything."""

    code = "unauthenticated"


class Forbidden(RopewayError):
    """That is not for this caller."""

    code = "forbidden"

    def __init__(self, detail: str | None = None, scope: str | None = None) -> None:
        """`scope` is the one that the caller's key lacks."""
        super().__init__(detail)
        self.scope = scope


class PriorityNotAllowed(Forbidden):
    """This key may not submit at that priority."""

    code = "priority_not_allowed"


class InputInvalid(RopewayError):
    """The input does not fit the task."""

    code = "input_invalid"

    def __init__(self, detail: str | None = None, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(detail)
        self.faults = faults


class JobNotFound(RopewayError):
    """No such job."""

    code = "job_not_found"


class TaskNotFound(RopewayError):
    """No worker or gateway has announced this task."""

    code = "task_not_found"


class JobPurged(RopewayError):
    """The job's result is past its retention."""

    code = "job_purged"


class JobLive(RopewayError):
    """The job has not ended yet."""

    code = "job_live"


class JobNotRetryable(RopewayError):
    """Only a job that has ended can be retried."""

    code = "job_not_retryable"


class JobNotRunning(RopewayError):
    """The job does not run yet, or waits for its next attempt."""

    code = "job_not_running"
    retryable = True


class JobEnded(RopewayError):
    """The job has ended."""

    code = "job_ended"


class TooManyInputs(RopewayError):
    """The job was sent as many inputs as it may have."""

    code = "too_many_inputs"


class IdempotencyKeyReused(RopewayError):
    """This idempotency key was used with another body."""

    code = "idempotency_key_reused"


class PayloadTooLarge(RopewayError):
    """The payload is above the limit."""

    code = "payload_too_large"


class KeyNotFound(RopewayError):
    """No such key."""

    code = "key_not_found"


class RateLimited(RopewayError):
    """This key, or its tenant, has done as much as it may for now."""

    code = "rate_limited"
    retryable = True


class TooManyQueued(RopewayError):
    """This tenant has as many jobs waiting as it may."""

    code = "too_many_queued"
    retryable = True

    def __init__(self, queue: str, depth: int) -> None:
        super().__init__(f"this tenant has {depth} jobs waiting in queue '{queue}', as many as it may")
        self.queue, self.depth = queue, depth


class QueueFull(RopewayError):
    """The queue holds as many jobs as it may."""

    code = "queue_full"
    retryable = True

    def __init__(self, queue: str, depth: int) -> None:
        super().__init__(f"queue '{queue}' holds {depth} jobs, as many as it may")
        self.queue, self.depth = queue, depth


class EngineUnavailable(RopewayError):
    """The engine did not answer; nothing was accepted."""

    code = "engine_unavailable"
    retryable = True


class OutcomeUnknown(EngineUnavailable):
    """The engine failed while answering: it may have happened. Retry with the same idempotency key."""

    code = "outcome_unknown"


class LeaseLost(RopewayError):
    """The lease is no longer held: the attempt just ends, and nothing was written."""

    code = "stale_lease"


class WaitTimeout(RopewayError):
    """The job did not end in the time given; it goes on."""

    code = "sync_timeout"
    retryable = True


class JobFailed(RopewayError):
    """The job failed."""

    code = "job_failed"

    def __init__(self, job_id: str, error: JobError) -> None:
        super().__init__(f"{job_id} failed: {error.code}: {error.message}")
        self.job_id, self.error = job_id, error


class JobCancelled(RopewayError):
    """The job was cancelled."""

    code = "cancelled"

    def __init__(self, job_id: str, reason: str | None = None) -> None:
        super().__init__(f"{job_id} was cancelled" + (f": {reason}" if reason else ""))
        self.job_id, self.reason = job_id, reason


class TaskFault(RopewayError):
    """Raised inside a task to say what should happen next."""

    code = "task_error"

    def __init__(self, detail: str | None = None, *, code: str = "task_error", **facts: Any) -> None:
        super().__init__(detail)
        self.fault_code = code
        self.facts = facts


class Fail(TaskFault):
    """The task failed for good: it is not tried again."""


class StepInvalid(Fail):
    """A step's name or result cannot be kept: it is not tried again, for it would come to the same."""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, code="step_invalid")


class ChildFailed(Fail):
    """A job that the task waited for did not succeed: `job_id`, with its own `error` unless it was cancelled.

    It is final where nobody catches it, since another attempt would find the same.
    """

    def __init__(self, job_id: str, error: JobError | None = None) -> None:
        told = "it was cancelled" if error is None else f"{error.code}: {error.message}"
        super().__init__(f"{job_id} did not succeed: {told}", code="child_failed")
        self.job_id, self.error = job_id, error


class RetryAfter(TaskFault):
    """The task asks to be tried again, not before `after_s` seconds from now."""

    def __init__(self, after_s: float, detail: str | None = None, *, code: str = "task_error") -> None:
        super().__init__(detail or f"asked to be tried again in {after_s:g} s", code=code)
        self.after_s = after_s

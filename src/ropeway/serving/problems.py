"""Every refusal as a problem (RFC 9457), with the `error` member that OpenAI's SDKs read in the same body.

    400 invalid_request                       409 job_live, job_not_retryable
    401 unauthenticated                       413 payload_too_large    415 unsupported_media_type
    403 forbidden, priority_not_allowed
    404 not_found, job_, task_, model_, queue_, key_not_found
    405 method_not_allowed                    422 input_invalid, idempotency_key_reused
    406 stream_not_supported                  424 the recorded error of a job, on its result
    408 request_timeout                       429 rate_limited, too_many_queued
    500 internal_error                        503 queue_full, engine_unavailable, outcome_unknown, draining,
                                                  too_many_streams

`x-should-retry` is on each: SDKs retry any 409, 429 and 5xx twice unless it says false.
"""

from __future__ import annotations

import secrets

import msgspec

from ropeway.domain.errors import (
    EngineUnavailable,
    Fault,
    Forbidden,
    IdempotencyKeyReused,
    InputInvalid,
    InvalidRequest,
    JobCancelled,
    JobEnded,
    JobError,
    JobFailed,
    JobLive,
    JobNotFound,
    JobNotRetryable,
    JobNotRunning,
    JobPurged,
    KeyNotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    QueueFull,
    RateLimited,
    RopewayError,
    TaskNotFound,
    TooManyInputs,
    TooManyQueued,
    Unauthenticated,
    WaitTimeout,
)
from ropeway.domain.file import (
    BlobMissing,
    DigestMismatch,
    FileNotFound,
    FilesNotKept,
    FilesUnavailable,
    QuotaExhausted,
    StorageFull,
)
from ropeway.domain.schedule import ScheduleConflict, ScheduleNotFound, TooManySchedules
from ropeway.serving.replies import Headers, Reply

__all__ = [
    "PROBLEM",
    "Draining",
    "Forbidden",
    "MethodNotAllowed",
    "Mirror",
    "ModelNotFound",
    "NotFound",
    "Problem",
    "QueueNotFound",
    "RangeNotSatisfiable",
    "RequestTimeout",
    "StreamNotSupported",
    "TooManyStreams",
    "TooManySubscriptions",
    "UnsupportedMediaType",
    "UpgradeRequired",
    "mirror_of",
    "problem_of",
    "problem_reply",
    "recorded_problem",
    "status_of",
    "type_uri",
]

PROBLEM = b"application/problem+json"

_UNEXPECTED = "the gateway failed; its log has the reason under this request's id"


class NotFound(RopewayError):
    """There is nothing here."""

    code = "not_found"


class ModelNotFound(TaskNotFound):
    """No task serves a model of that name."""

    code = "model_not_found"


class QueueNotFound(RopewayError):
    """No such queue."""

    code = "queue_not_found"


class MethodNotAllowed(RopewayError):
    """That method is not for this path."""

    code = "method_not_allowed"

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method[:20]} is not for this path: {', '.join(allowed)}")
        self.allowed = allowed


class StreamNotSupported(RopewayError):
    """This cannot be streamed."""

    code = "stream_not_supported"


class RangeNotSatisfiable(RopewayError):
    """The file has no such range."""

    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size:,} bytes")
        self.size = size


class RequestTimeout(RopewayError):
    """The request did not arrive in time."""

    code = "request_timeout"
    retryable = True


class UpgradeRequired(RopewayError):
    """This is a WebSocket: connect by its protocol, with the subprotocol ropeway.v1."""

    code = "upgrade_required"


class UnsupportedMediaType(RopewayError):
    """The body is of a kind that is not read here."""

    code = "unsupported_media_type"


class Draining(EngineUnavailable):
    """This gateway is stopping: ask another, or again."""

    code = "draining"


class TooManyStreams(RopewayError):
    """This gateway has as many open streams as it may."""

    code = "too_many_streams"
    retryable = True


class TooManySubscriptions(RopewayError):
    """As many jobs are followed on this socket as may be."""

    code = "too_many_subscriptions"


_STATUS: dict[type[RopewayError], int] = {
    InvalidRequest: 400,
    DigestMismatch: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    JobNotFound: 404,
    FileNotFound: 404,
    TaskNotFound: 404,
    QueueNotFound: 404,
    KeyNotFound: 404,
    ScheduleNotFound: 404,
    MethodNotAllowed: 405,
    StreamNotSupported: 406,
    RequestTimeout: 408,
    JobLive: 409,
    JobNotRetryable: 409,
    JobNotRunning: 409,
    JobEnded: 409,
    TooManyInputs: 409,
    ScheduleConflict: 409,
    TooManySchedules: 409,
    JobPurged: 410,
    PayloadTooLarge: 413,
    UnsupportedMediaType: 415,
    RangeNotSatisfiable: 416,
    InputInvalid: 422,
    IdempotencyKeyReused: 422,
    UpgradeRequired: 426,
    JobFailed: 424,
    JobCancelled: 424,
    RateLimited: 429,
    TooManyQueued: 429,
    QuotaExhausted: 429,
    BlobMissing: 500,
    FilesNotKept: 501,
    QueueFull: 503,
    EngineUnavailable: 503,
    OutcomeUnknown: 503,
    Draining: 503,
    TooManyStreams: 503,
    TooManySubscriptions: 429,
    FilesUnavailable: 503,
    WaitTimeout: 504,
    StorageFull: 507,
}

_MIRROR_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Mirror(msgspec.Struct, frozen=True):
    """What OpenAI's SDKs read."""

    message: str
    type: str
    code: str
    param: str | None = None


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was refused. `retryable`: the same call may succeed later.

    `errors` names the faults of an input by JSON pointer; `queue` and `depth` tell of a full queue; `job_error` is
    the recorded error of a job that failed.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    error: Mirror
    instance: str = ""
    errors: tuple[Fault, ...] = ()
    queue: str | None = None
    depth: int | None = None
    job_error: JobError | None = None


def problem_of(error: Exception, detail: str | None = None) -> Problem:
    """The problem that an error is. `detail` may say it better than the error does."""
    if not isinstance(error, RopewayError):
        error, status, code, title = RopewayError(_UNEXPECTED), 500, "internal_error", "Unexpected failure"
    else:
        status, code, title = status_of(error), error.code, (type(error).__doc__ or "").splitlines()[0].rstrip(".")
    param = getattr(error, "param", None)
    said = detail or error.detail
    return Problem(
        type=type_uri(code),
        title=title,
        status=status,
        detail=said,
        code=code,
        retryable=error.retryable,
        error=mirror_of(status, said, code, param),
        instance=f"req_{secrets.token_hex(8)}",
        errors=getattr(error, "faults", ()),
        queue=getattr(error, "queue", None),
        depth=getattr(error, "depth", None),
    )


def recorded_problem(job_id: str, error: JobError) -> Problem:
    """The error that a job ended with, as the answer to who asks for its result. To ask again is of no use."""
    failed = JobFailed(job_id, error)
    return msgspec.structs.replace(
        problem_of(failed, error.message),
        type=type_uri(error.code),
        code=error.code,
        error=mirror_of(status_of(failed), error.message, error.code),
        job_error=error,
    )


def type_uri(code: str) -> str:
    """What a problem of this code has as its `type`."""
    return f"urn:ropeway:error:{code}"


def status_of(error: RopewayError) -> int:
    """The HTTP status of an error's class, or of its nearest parent's; 500 for one that no request should meet."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def problem_reply(problem: Problem, headers: Headers = (), retry_after_s: float | None = None) -> Reply:
    """The problem as an answer. `retry_after_s` is given in whole seconds, 1 at the least."""
    extra = [*headers, (b"x-should-retry", b"true" if problem.retryable else b"false")]
    if all(name != b"x-request-id" for name, _ in extra):
        extra.append((b"x-request-id", problem.instance.encode()))
    if retry_after_s is not None:
        extra.append((b"retry-after", b"%d" % max(1, round(retry_after_s))))
    return Reply(problem.status, msgspec.json.encode(problem), PROBLEM, extra)


def mirror_of(status: int, message: str, code: str, param: str | None = None) -> Mirror:
    """An error as OpenAI's SDKs read it, of the type that goes with this status."""
    kind = _MIRROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return Mirror(message, kind, code, param)

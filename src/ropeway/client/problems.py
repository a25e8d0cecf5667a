"""From a gateway's problem+json back to the error that it stands for: the same classes as on an engine."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ropeway.domain.errors import (
    EngineUnavailable,
    Fault,
    Forbidden,
    IdempotencyKeyReused,
    InputInvalid,
    InvalidRequest,
    JobEnded,
    JobLive,
    JobNotFound,
    JobNotRetryable,
    JobNotRunning,
    JobPurged,
    KeyNotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    PriorityNotAllowed,
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

__all__ = ["GatewayRefused", "ProblemBody", "error_from", "error_of"]

_PLAIN: dict[str, type[RopewayError]] = {
    error.code: error
    for error in (
        EngineUnavailable,
        Forbidden,
        IdempotencyKeyReused,
        JobEnded,
        JobLive,
        JobNotFound,
        JobNotRetryable,
        JobNotRunning,
        JobPurged,
        KeyNotFound,
        OutcomeUnknown,
        PayloadTooLarge,
        PriorityNotAllowed,
        RateLimited,
        TaskNotFound,
        TooManyInputs,
        Unauthenticated,
        WaitTimeout,
        BlobMissing,
        DigestMismatch,
        FileNotFound,
        FilesNotKept,
        FilesUnavailable,
        QuotaExhausted,
        ScheduleConflict,
        ScheduleNotFound,
        StorageFull,
        TooManySchedules,
    )
}
_FULL: dict[str, type[QueueFull] | type[TooManyQueued]] = {"queue_full": QueueFull, "too_many_queued": TooManyQueued}

_AWAY = frozenset({"draining", "too_many_streams"})  # another gateway, or the same one later, will do it
_UNAVAILABLE = frozenset({502, 503, 504})  # a proxy's own words


class GatewayRefused(RopewayError):
    """The gateway refused for a reason that has no class of its own; `problem_code` and `status` say which."""

    code = "gateway_refused"

    def __init__(self, detail: str, problem_code: str, status: int) -> None:
        super().__init__(detail)
        self.problem_code, self.status = problem_code, status


class _Mirror(msgspec.Struct):
    param: str | None = None


class ProblemBody(msgspec.Struct):
    """What is read of a problem (RFC 9457), as an answer's whole body or inside a line of NDJSON."""

    code: str = ""
    title: str = ""
    detail: str = ""
    errors: list[Fault] = []
    error: _Mirror = msgspec.field(default_factory=_Mirror)
    queue: str = ""
    depth: int = 0


def error_of(status: int, headers: Mapping[str, str], content: bytes) -> RopewayError:
    """The error that an answer of this status stands for, with `retry_after_s` from its header."""
    try:
        problem = msgspec.json.decode(content, type=ProblemBody)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        problem = ProblemBody(detail=f"the server answered {status}: {content[:200].decode(errors='replace')}")
    error = error_from(problem, status)
    seconds = headers.get("retry-after", "")
    if seconds.isascii() and seconds.isdigit():  # the date form is for caches; gateways send seconds
        error.retry_after_s = float(seconds)
    return error


def error_from(problem: ProblemBody, status: int) -> RopewayError:
    """The error that a problem stands for; one of GatewayRefused when it has no class of its own."""
    detail = problem.detail or problem.title or f"the server answered {status}"
    if problem.code in _PLAIN:
        return _PLAIN[problem.code](detail)
    if problem.code in _FULL:
        return _with_detail(_FULL[problem.code](problem.queue, problem.depth), detail)
    if problem.code == InputInvalid.code:
        return InputInvalid(detail, tuple(problem.errors))
    if problem.code == InvalidRequest.code:
        return InvalidRequest(detail, problem.error.param)
    if problem.code in _AWAY or (not problem.code and status in _UNAVAILABLE):
        return EngineUnavailable(detail)
    return GatewayRefused(detail, problem.code, status)


def _with_detail(error: RopewayError, detail: str) -> RopewayError:
    """The gateway's own sentence, which knows more than the numbers that came along."""
    error.detail = detail
    error.args = (detail,)
    return error

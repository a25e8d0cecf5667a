"""What the pipeline's own routes share: reading a JSON body within its limits, and answers, refusals among them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from examples.pipeline.shapes import Problem
from ropeway import (
    EngineUnavailable,
    IdempotencyKeyReused,
    InvalidRequest,
    JobNotFound,
    PayloadTooLarge,
    QueueFull,
    RopewayError,
)

__all__ = [
    "NDJSON",
    "Refused",
    "check_host",
    "is_ndjson",
    "json_answer",
    "lines_answer",
    "problem_of",
    "read_json",
    "read_lines",
    "refusal",
]

BODY_LIMIT_BYTES = 64 * 1024  # a text of 10,000 characters, escaped at its worst
BATCH_LIMIT_BYTES = 16 * 1024**2
BATCH_LINES = 1_000
BODY_DEADLINE_S = 30.0

NDJSON = "application/x-ndjson"

_UNCACHED = {"cache-control": "no-store"}
_encode_lines = msgspec.json.Encoder().encode_lines

T = TypeVar("T")


class Refused(RopewayError):
    """The request is refused with a status of its own."""

    def __init__(self, status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.name, self.headers = status, code, headers or {}


_STATUS: tuple[tuple[type[RopewayError], int], ...] = (
    (InvalidRequest, 400),
    (JobNotFound, 404),
    (PayloadTooLarge, 413),
    (IdempotencyKeyReused, 422),
    (QueueFull, 503),
    (EngineUnavailable, 503),
)


def json_answer(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, _UNCACHED, "application/json")


def lines_answer(lines: Sequence[object]) -> Response:
    """NDJSON."""
    return Response(_encode_lines(lines), 200, _UNCACHED, NDJSON)


def refusal(error: RopewayError, retry_after_s: float | None = None) -> Response:
    """The error as a problem; `retry_after_s` is told in whole seconds, 1 at the least."""
    headers = _UNCACHED | (error.headers if isinstance(error, Refused) else {})
    if retry_after_s is not None:
        headers["retry-after"] = str(max(round(retry_after_s), 1))
    problem = problem_of(error)
    return Response(msgspec.json.encode(problem), problem.status, headers, "application/problem+json")


def problem_of(error: RopewayError) -> Problem:
    """The problem that an error is."""
    if isinstance(error, Refused):
        status, code = error.status, error.name
    else:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        code = error.code
    title = (type(error).__doc__ or "").splitlines()[0].rstrip(".")
    param = getattr(error, "param", None)
    return Problem(f"urn:ropeway:error:{code}", title, status, error.detail, code, error.retryable, param)


def check_host(request: Request, allowed: tuple[str, ...] | None) -> None:
    """Raises Refused for a Host that is none of ours: a page may have its own name resolve to this machine."""
    host = request.headers.get("host", "").lower()
    name, colon, port = host.rpartition(":")
    if allowed is not None and (name if colon and port.isdigit() else host) not in allowed:
        raise Refused(403, "forbidden", f"this server does not answer to host {host[:100]!r}")


def is_ndjson(request: Request) -> bool:
    """Whether the body is announced as lines of JSON."""
    return _media_type(request) == NDJSON


async def read_json(request: Request, kind: type[T]) -> T:
    """The body as `kind`. Raises InvalidRequest that says what is wrong and where, PayloadTooLarge, Refused."""
    media_type = _media_type(request)
    if media_type != "application/json":  # a page of another origin can send the plain types without asking
        raise Refused(415, "unsupported_media_type", f"Content-Type is {media_type[:80]!r}; send application/json")
    return _decoded(await _read(request, BODY_LIMIT_BYTES), kind)


async def read_lines(request: Request, kind: type[T]) -> list[T | InvalidRequest]:
    """Each line of the body as `kind`, or what is wrong with it. Raises InvalidRequest, PayloadTooLarge, Refused."""
    lines = [line for line in (await _read(request, BATCH_LIMIT_BYTES)).split(b"\n") if line.strip()]
    if not lines:
        raise InvalidRequest("there is no line of JSON in the body")
    if len(lines) > BATCH_LINES:
        raise PayloadTooLarge(f"{len(lines)} lines are more than the {BATCH_LINES} taken at once")
    return [_decoded_line(line, kind) for line in lines]


def _decoded_line(line: bytes, kind: type[T]) -> T | InvalidRequest:
    try:
        return _decoded(line, kind)
    except InvalidRequest as error:
        return error


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        _, _, place = str(error).partition(" - at `$.")
        raise InvalidRequest(str(error), param=place.rstrip("`") or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error


async def _read(request: Request, limit_bytes: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit_bytes:
                    raise PayloadTooLarge(f"the body is larger than {limit_bytes} bytes")
    except TimeoutError:
        raise Refused(408, "request_timeout", f"the body was not whole after {BODY_DEADLINE_S:g} s") from None
    return bytes(body)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()

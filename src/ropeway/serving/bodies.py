"""Bodies of JSON: decoded into a request's type, or refused with the field that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from starlette.requests import Request

from ropeway.client.wire import JobRequest
from ropeway.domain.errors import InvalidRequest
from ropeway.serving.admission import body_limit
from ropeway.serving.callers import caller_of
from ropeway.serving.parts import Parts
from ropeway.serving.requests import header_map, read_body, require_json
from ropeway.serving.strict import check_depth, check_members, explain

__all__ = ["CancelRequest", "Nothing", "decode_request", "misshapen", "read_json"]

T = TypeVar("T")

_decode_request = msgspec.json.Decoder(JobRequest).decode


class CancelRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a job is cancelled, for whoever reads it later. `for_all`: also for those who share it."""

    reason: str | None = None
    for_all: bool = False

    def __post_init__(self) -> None:
        if self.reason is not None and (len(self.reason) > 1000 or "\x00" in self.reason):
            raise ValueError("a reason has at most 1000 characters, none of them NUL")


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No members."""


def decode_request(body: bytes) -> JobRequest:
    """Raises InvalidRequest for what is not JSON, or not a submit; `param` names the field."""
    return _decoded(_decode_request, body)


async def read_json(request: Request, parts: Parts, kind: type[T], *, needed: bool = False) -> T:
    """A small body; without one, all is left out that may be, unless it is `needed`.

    Raises as `read_body` does, and InvalidRequest.
    """
    headers, options = header_map(request.scope), parts.options
    limit = parts.deadlines.limit(options.body_deadline_s)
    body = await read_body(
        request.receive, headers, body_limit(caller_of(request.scope), options.max_body_bytes), limit
    )
    decode = msgspec.json.Decoder(kind).decode
    if not body.strip():
        if needed:
            raise InvalidRequest("a body is needed here: say what is to be set, in JSON")
        return _decoded(decode, b"{}")
    require_json(headers)
    check_depth(body, options.max_depth)
    value = _decoded(decode, body)
    check_members(body)
    return value


def _decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise misshapen(error) from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise explain(body, error) from error


def misshapen(error: msgspec.ValidationError) -> InvalidRequest:
    """What msgspec says of a value of the wrong type, with the field that it says it of."""
    said, _, place = str(error).partition(" - at `")
    param = place.rstrip("`").removeprefix("$").lstrip(".") or None
    if param is None and said.startswith("Object contains unknown field"):
        param = said.split("`")[1]
    return InvalidRequest(f"{said} at {param}" if place else said, param=param)

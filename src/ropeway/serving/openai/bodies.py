"""What every creating call on the OpenAI routes says, and how it is read: members that we do not know are no fault."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from ropeway.client.wire import JobRequest, PriorityName
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.job import Job
from ropeway.domain.rank import Priority
from ropeway.serving.admission import body_limit
from ropeway.serving.bodies import misshapen
from ropeway.serving.callers import caller_of
from ropeway.serving.parts import Parts
from ropeway.serving.requests import header_map, read_body, require_json
from ropeway.serving.strict import check_depth, explain

__all__ = ["CallBody", "converted", "job_request", "read_call", "read_object", "service_tier", "unknown_members"]

T = TypeVar("T")

_TIERS: dict[str, PriorityName] = {"flex": "low", "default": "normal", "scale": "normal", "priority": "high"}
_TIER_OF = {Priority.low: "flex", Priority.normal: "default", Priority.high: "priority"}
_OWN = ("task", "input")  # of a submit: what these routes themselves say


class CallBody(msgspec.Struct, frozen=True):
    """The members that all creating calls share. `job` holds the options of a submit, as in `POST /v1/jobs`."""

    model: str
    job: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    user: str | None = None
    stream: bool | None = None


async def read_call(request: Request, parts: Parts) -> bytes:
    """The body of a creating call. Raises as `read_body` does."""
    headers, options = header_map(request.scope), parts.options
    require_json(headers)
    body = await read_body(
        request.receive,
        headers,
        body_limit(caller_of(request.scope), options.max_body_bytes),
        parts.deadlines.limit(options.body_deadline_s),
    )
    check_depth(body, options.max_depth)
    return body


def read_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises InvalidRequest."""
    try:
        value = msgspec.json.decode(body)
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise explain(body, error) from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object")
    return value


def converted(raw: dict[str, Any], kind: type[T], within: str = "") -> T:
    """`raw` as a request of this type. Raises InvalidRequest; its `param` names the member, after `within`."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        refusal = misshapen(error)
        if within:
            refusal = InvalidRequest(f"{within}: {refusal.detail}", f"{within}.{refusal.param or ''}".rstrip("."))
        raise refusal from error


def unknown_members(raw: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The members that this type has no field for."""
    return {name: value for name, value in raw.items() if name not in kind.__struct_fields__}


def job_request(body: CallBody, task: str, input_json: bytes, on_disconnect: str) -> JobRequest:
    """The submit that a call is. Its `job` member wins over what OpenAI's own members say.

    Raises InvalidRequest, with `job.…` as its `param`.
    """
    said = body.job or {}
    for name in _OWN:
        if name in said:
            raise InvalidRequest(f"job.{name} is what this call itself says", param=f"job.{name}")
    fields: dict[str, Any] = {"on_disconnect": on_disconnect, "priority": _TIERS.get(body.service_tier or ""), **said}
    asked = converted({**fields, "task": task}, JobRequest, "job")
    metadata = {**(body.metadata or {}), **asked.metadata}
    return msgspec.structs.replace(asked, input=msgspec.Raw(input_json), metadata=metadata)


def service_tier(job: Job) -> str:
    """What the job's priority is called there."""
    return _TIER_OF.get(job.priority, "default")

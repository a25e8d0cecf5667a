"""The OpenAPI 3.1 document, made from the route table and from the very types that the routes decode and encode."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec

from ropeway.serving.problems import PROBLEM, Problem
from ropeway.serving.routes import ROUTES, Answer, Param, Route

__all__ = ["build_document"]

_ABOUT = """A durable job queue and streaming gateway for AI inference.

A submit is answered 202 once the job is stored; `/v1/info` says how durably. The job's event log is its only history:
every way to follow it reads that log with a cursor. Times are RFC 3339 UTC, durations are seconds. Unknown members of
a request, unknown query parameters and JSON objects that name a member twice are refused. Every error is a problem
(RFC 9457); `code` is for programs, `error` mirrors it for OpenAI's SDKs."""

_TAGS = {
    "jobs": "Submit, follow, fetch, cancel.",
    "queues": "Named lines with a policy.",
    "tasks": "What may be submitted.",
    "schedules": "What is submitted again and again.",
    "keys": "Who may do what, and how much.",
    "limits": "How many jobs run at once, and how fast they start, on all workers together.",
    "fleet": "Workers and figures.",
    "files": "Bytes too large for a job's own row.",
    "openai": "For OpenAI's SDKs: views of jobs.",
    "health": "For balancers and supervisors.",
    "about": "This interface.",
}

_KEY = {"type": "http", "scheme": "bearer", "description": "`rw_…`. As long as no key was made, none is asked for."}

_HEADERS = {
    "Location": "Where what was made is.",
    "ETag": "The version of what is answered.",
    "Content-Range": "Which bytes these are.",
    "Retry-After": "Seconds until it is worth asking again.",
    "X-Job-Id": "The job that the call is.",
    "Server-Timing": "How long it waited and ran, in milliseconds.",
    "Idempotency-Replayed": "`true` when the key gave an earlier job back.",
    "Cache-Status": "That another's job is the answer: `hit` for its result, `collapsed` while it is under way.",
}


def build_document(base: str = "") -> dict[str, Any]:
    """The document of a gateway mounted at `base`."""
    kinds = _kinds()
    schemas, components = msgspec.json.schema_components(
        [_documented(kind) for kind in kinds], ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(map(id, kinds), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path.replace(":path}", "}"), {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ropeway", "version": version("ropeway"), "description": _ABOUT},
        "servers": [{"url": base or "/"}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": _KEY}},
        "security": [{}, {"key": []}],
    }


def _kinds() -> list[Any]:
    """Every type that the table names, once."""
    bodies = [kind for route in ROUTES for _, kind in route.body]
    answers = [kind for route in ROUTES for answer in route.answers for _, kind in answer.content]
    return list({id(kind): kind for kind in (*bodies, *answers, Problem)}.values())


def _documented(kind: Any) -> Any:
    """`kind` as msgspec can describe it: raw JSON, which it cannot, is any value."""
    return _documented_struct(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else kind


@cache  # one that stands in another is the same as where it stands alone
def _documented_struct(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    fields = msgspec.structs.fields(kind)
    if not any(field.type is msgspec.Raw or _documented(field.type) is not field.type for field in fields):
        return kind
    documented = msgspec.defstruct(kind.__name__, [_field(field) for field in fields], forbid_unknown_fields=True)
    documented.__doc__ = kind.__doc__
    return documented


def _field(field: msgspec.structs.FieldInfo) -> Any:
    if field.type is msgspec.Raw:
        return field.name, Any, {}
    if field.required:
        return field.name, _documented(field.type)
    is_plain = field.default is not msgspec.NODEFAULT
    return field.name, field.type, field.default if is_plain else field.default_factory()


def _operation(route: Route, schema_of: dict[int, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "tags": [route.tag],
        "summary": route.about.split(". ")[0].split(": ")[0].rstrip("."),
        "description": route.about,
        "responses": _responses(route, schema_of),
    }
    if route.scope is None:
        operation["security"] = []
    else:
        operation["description"] += f" Needs the scope `{route.scope}`."
    if route.params:
        operation["parameters"] = [_parameter(param) for param in route.params]
    if route.body:
        content = {media: {"schema": schema_of[id(kind)]} for media, kind in route.body}
        operation["requestBody"] = {"required": route.needs_body, "content": content}
    return operation


def _parameter(param: Param) -> dict[str, Any]:
    return {
        "name": param.name,
        "in": param.where,
        "required": param.where == "path",
        "description": param.about,
        "schema": param.schema,
    }


def _responses(route: Route, schema_of: dict[int, Any]) -> dict[str, Any]:
    problem = {PROBLEM.decode(): {"schema": schema_of[id(Problem)]}}
    refusals = {
        str(status): {"description": HTTPStatus(status).phrase, "content": problem}
        for status in (*route.errors, *(() if route.scope is None else (401, 429)), 403, 500)
    }
    return refusals | {str(answer.status): _response(answer, schema_of) for answer in route.answers}


def _response(answer: Answer, schema_of: dict[int, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.about}
    if answer.content:
        response["content"] = {media: {"schema": schema_of[id(kind)]} for media, kind in answer.content}
    if answer.headers:
        response["headers"] = {
            name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in answer.headers
        }
    return response

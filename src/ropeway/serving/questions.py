"""What a request asks by its path, its query and its conditional headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from starlette.requests import Request

from ropeway.domain.errors import InvalidRequest, JobNotFound
from ropeway.domain.event import START, Cursor
from ropeway.domain.job import Job, JobQuery, check_name
from ropeway.domain.lifecycle import State

__all__ = [
    "LIST_DEFAULT",
    "LIST_LIMIT",
    "after_of",
    "base_of",
    "changed_since",
    "is_job_id",
    "job_id_of",
    "job_query",
    "limit_of",
    "name_of",
    "tag_of",
    "types_of",
]

LIST_DEFAULT = 50
LIST_LIMIT = 200

_CURSOR_LIMIT = 1 << 62  # epochs and numbers have 64 bits in every store
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ETAG = re.compile(rb'(?:W/)?"([^"]*)"')

Query = Mapping[str, str]


def base_of(request: Request) -> str:
    """Where the gateway is mounted; links begin with it."""
    base: str = request.scope.get("root_path", "")
    return base


def job_id_of(request: Request) -> str:
    """The id in the path. What cannot be one is JobNotFound like one that is not there."""
    job_id: str = request.path_params["id"]
    if not is_job_id(job_id):
        raise JobNotFound("no such job")
    return job_id


def is_job_id(text: str) -> bool:
    """Whether a job may have this id."""
    return _JOB_ID.fullmatch(text) is not None


def job_query(tenant: str, query: Query) -> JobQuery:
    """The filter of a list. Raises InvalidRequest with the parameter that is wrong."""
    return JobQuery(
        tenant,
        states=_states(query.get("state")),
        queue=name_of(query, "queue"),
        task=name_of(query, "task"),
        tag=tag_of(query),
        limit=limit_of(query.get("limit"), LIST_DEFAULT, LIST_LIMIT),
        before=_text(query, "cursor"),
    )


def types_of(query: Query) -> frozenset[str] | None:
    """The wanted types of events; None: all."""
    text = _text(query, "types")
    return None if text is None else frozenset(part.strip() for part in text.split(","))


def after_of(headers: Mapping[bytes, bytes], query: Query) -> Cursor:
    """Where to resume: `Last-Event-ID` wins over `?after=`; the beginning when neither is there."""
    text = headers.get(b"last-event-id", b"").decode("latin-1").strip() or query.get("after", "")
    if not text:
        return START
    cursor = Cursor.parse(text)
    if max(cursor) >= _CURSOR_LIMIT:
        raise InvalidRequest(f"{text[:40]!r} is not an event id", param="after")
    return cursor


def tag_of(query: Query) -> str | None:
    return _text(query, "tag")


def changed_since(if_none_match: bytes) -> Callable[[Job], bool]:
    """Whether a job is in another version than those that an If-None-Match names."""
    known = set(_ETAG.findall(if_none_match))
    any_version = if_none_match.strip() == b"*"
    return lambda job: not any_version and b"%d" % job.version not in known


def _states(text: str | None) -> tuple[State, ...]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    try:
        return tuple(State(name) for name in names)
    except ValueError:
        raise InvalidRequest(f"state is one or more of {', '.join(State)}; not {text!r:.60}", param="state") from None


def limit_of(text: str | None, default: int, most: int) -> int:
    """How many are asked for on a page. Raises InvalidRequest."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise InvalidRequest(f"limit is 1 to {most}, not {text[:40]!r}", param="limit")
    return int(text)


def name_of(query: Query, kind: str) -> str | None:
    """The queue or task asked for. Raises InvalidRequest for what cannot be a name."""
    name = query.get(kind)
    return None if name is None else check_name(kind, name)


def _text(query: Query, name: str) -> str | None:
    text = query.get(name)
    if text is not None and not (len(text) <= 255 and text.isprintable()):
        raise InvalidRequest(f"{name} is at most 255 printable characters", param=name)
    return text or None

"""Events on the wire: server-sent events or lines of JSON, the same envelope in both.

1. `id:` lines together with a heartbeat that ends in a blank line dispatch an empty event and crash OpenAI's SDKs; the
   one line `: hb` does not. A bare `retry:` block crashes them the same way: it goes inside the first whole block.
2. Data is one line. A newline in it can only stand between JSON's tokens (inside strings it is escaped), so a space
   in its place changes nothing; left in, it would end the event.
3. An event's type is a worker's free text: only a plain one is repeated outside the JSON.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from ropeway.client.wire import JobBody, timestamp
from ropeway.domain.event import Event
from ropeway.domain.output import shown_data
from ropeway.serving import replies

__all__ = ["NDJSON_FORM", "SSE_FORM", "Form", "envelope"]

RETRY_MS = 1000
_RETRY = b"retry: %d\n" % RETRY_MS

_PLAIN_TYPE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")

_encode = msgspec.json.Encoder().encode


class Form(Protocol):
    """How events are written."""

    content_type: bytes
    heartbeat: bytes

    def event(self, type_: str, body: bytes, event_id: str | None, *, first: bool) -> bytes:
        """One event whose envelope is `body`."""
        ...

    def control(self, type_: str, data: dict[str, Any], *, first: bool) -> bytes:
        """Something that the gateway says for itself: it has no id, so it moves no cursor."""
        ...


class _Sse:
    content_type = replies.SSE
    heartbeat = b": hb\n"

    def event(self, type_: str, body: bytes, event_id: str | None, *, first: bool) -> bytes:
        retry = _RETRY if first else b""
        id_ = b"" if event_id is None else b"id: %b\n" % event_id.encode()
        return b"%b%b%bdata: %b\n\n" % (retry, id_, _type_line(type_), _one_line(body))

    def control(self, type_: str, data: dict[str, Any], *, first: bool) -> bytes:
        return self.event(type_, _encode(data), None, first=first)


class _Ndjson:
    content_type = replies.NDJSON
    heartbeat = b"\n"

    def event(self, type_: str, body: bytes, event_id: str | None, *, first: bool) -> bytes:
        return _one_line(body) + b"\n"

    def control(self, type_: str, data: dict[str, Any], *, first: bool) -> bytes:
        return _encode({"type": type_, "data": data}) + b"\n"


SSE_FORM: Form = _Sse()
NDJSON_FORM: Form = _Ndjson()


def envelope(event: Event, job: JobBody | None = None) -> bytes:
    """The event as `EventBody` in JSON; a terminal one carries the final job, when given.

    Put together by hand, three times as fast: it is done for every token of every reader.
    """
    epoch, seq = event.cursor
    type_, job_id, at = _quoted(event.type), _quoted(event.job_id), _at(event.at_ms)
    data = shown_data(event).encode() if job is None else _encode(job)
    return b'{"id":"%d-%d","seq":%d,"type":%b,"job_id":%b,"attempt":%d,"at":"%b","data":%b}' % (
        epoch, seq, seq, type_, job_id, event.attempt, at, data
    )  # fmt: skip


@lru_cache(maxsize=1024)  # event types and job ids: those of the streams of the moment
def _quoted(text: str) -> bytes:
    return _encode(text)


@lru_cache(maxsize=256)
def _type_line(type_: str) -> bytes:
    return b"event: %b\n" % type_.encode() if _PLAIN_TYPE.fullmatch(type_) else b""


@lru_cache(maxsize=256)  # events of one append have one time
def _at(at_ms: int) -> bytes:
    return timestamp(at_ms).encode()


def _one_line(body: bytes) -> bytes:
    if b"\n" in body or b"\r" in body:
        return body.replace(b"\n", b" ").replace(b"\r", b" ")
    return body

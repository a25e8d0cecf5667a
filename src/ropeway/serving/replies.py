"""Answers: a status, headers and a body, sent in two messages; and the headers that every answer carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

__all__ = ["JSON", "NDJSON", "PLAIN", "SSE", "Headers", "Message", "Receive", "Reply", "Scope", "Send", "json_reply"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

JSON = b"application/json"
NDJSON = b"application/x-ndjson"
SSE = b"text/event-stream"
PLAIN = b"text/plain; charset=utf-8"

_EVERYWHERE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))

_encode = msgspec.json.Encoder().encode


class Reply:
    """A whole answer; itself an ASGI application, as Starlette wants its responses."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes = b"", content_type: bytes = JSON, headers: Headers = ()) -> None:
        self.status = status
        self.body = body
        self.headers = [
            *((_EVERYWHERE[0],) if _names(headers, b"cache-control") else _EVERYWHERE),
            (b"content-length", b"%d" % len(body)),
            *headers,
        ]
        if body:
            self.headers.append((b"content-type", content_type))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else self.body})


def json_reply(body: object, status: int = 200, headers: Headers = ()) -> Reply:
    """`body` as JSON, in the answer's own encoding of structs."""
    return Reply(status, _encode(body), JSON, headers)


def _names(headers: Headers, name: bytes) -> bool:
    return any(key == name for key, _ in headers)

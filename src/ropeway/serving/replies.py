"""Answers: a status, headers and a body, sent in two messages; and the headers that every answer carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

__all__ = [
    "JSON",
    "NDJSON",
    "PLAIN",
    "SSE",
    "Headers",
    "Message",
    "Receive",
    "Reply",
    "Scope",
    "Send",
    "json_reply",
    "telling",
    "told_along",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

JSON = b"application/json"
NDJSON = b"application/x-ndjson"
SSE = b"text/event-stream"
PLAIN = b"text/plain; charset=utf-8"

_NOSNIFF = (b"x-content-type-options", b"nosniff")
_NO_STORE = (b"cache-control", b"no-store")

_ALONG = "ropeway.along"

_encode = msgspec.json.Encoder().encode


class Reply:
    """A whole answer; itself an ASGI application, as Starlette wants its responses.

    Nothing keeps it unless `cache_control` says otherwise.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: bytes = JSON,
        headers: Headers = (),
        cache_control: bytes | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            _NOSNIFF,
            _NO_STORE if cache_control is None else (b"cache-control", cache_control),
            *headers,
        ]
        if not body:
            del self.headers[0]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else self.body})


def json_reply(body: object, status: int = 200, headers: Headers = ()) -> Reply:
    """`body` as JSON, in the answer's own encoding of structs."""
    return Reply(status, _encode(body), JSON, headers)


def told_along(scope: Scope, *headers: tuple[bytes, bytes]) -> None:
    """Have the answer to this request carry these headers, whatever it will be; of a name the last word counts."""
    along: dict[bytes, bytes] = scope.setdefault(_ALONG, {})
    along.update(headers)


def telling(scope: Scope, send: Send) -> Send:
    """`send`, with the headers that the answer is to carry along."""
    along = scope.get(_ALONG)
    if not along:
        return send

    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *along.items()]}
        await send(message)

    return send_with

"""What a WebSocket is on the wire, and what an ASGI application is told of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from ropeway.serving.replies import Scope

__all__ = ["frame", "refusal", "scope_of"]

_TEXT, _BINARY = 0x81, 0x82  # whole messages (RFC 6455, 5.2)


def frame(data: bytes, *, is_text: bool) -> bytes:
    """A message as a server sends it: one frame, unmasked (RFC 6455, 5.2)."""
    first, size = _TEXT if is_text else _BINARY, len(data)
    if size < 126:
        return bytes((first, size)) + data
    if size < 65_536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + data
    return bytes((first, 127)) + size.to_bytes(8, "big") + data


def refusal(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Response:
    """A handshake's answer that is no WebSocket."""
    told = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
    if "Content-Length" not in told:
        told["Content-Length"] = str(len(body))
    told["Connection"] = "close"
    return Response(status, "", told, body)


def scope_of(request: Request, transport: Any, root_path: str) -> Scope:
    """The handshake as ASGI has it."""
    raw_path, _, query = request.path.partition("?")
    offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol")).split(",")
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if is_ssl(transport) else "ws",
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "root_path": root_path,
        "path": root_path + unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()],
        "subprotocols": [name.strip() for name in offered if name.strip()],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }

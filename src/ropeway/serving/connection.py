"""uvicorn's HTTP/1.1 connection, with what it lacks: a deadline and a limit for a request's head, and small parts.

1. Without the limits a client that sends a letter now and then, or nothing at all, holds a connection for ever, and a
   head may be as large as memory is. (uvicorn limits the time between requests only.)
2. A lost connection ends all its requests. uvicorn tells the newest one alone, so that a stream with another request
   sent behind it would never learn that its reader has gone.
3. The rest of a body whose request is refused already is thrown away as it comes, within the time of a head. A
   connection that is closed on it would be reset, and the client would never read why it was refused.
4. There are connections by the ten thousand, each with one stream: its flags and its queue of requests, which nearly
   always is empty, are small ones of ours (2 KiB a connection).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ropeway.domain.errors import InvalidRequest
from ropeway.serving.flag import Flag
from ropeway.serving.problems import problem_of, problem_reply
from ropeway.serving.replies import Receive, Scope, Send

__all__ = ["Connection", "connection_class"]


class Connection(HttpToolsProtocol):
    """One connection. `head_deadline_s` counts from when it opens, and from the first byte of each further request."""

    head_deadline_s: float
    max_head_bytes: int

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_body = False
    _unanswered: tuple[Any, ...] = ()  # requests, the last of them `cycle`

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport)  # type: ignore[assignment]
        self.pipeline = _Queue()  # type: ignore[assignment]
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        for cycle in self._unanswered:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.gone = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self._head_timer is None:
            self._expect_head()
        if not self._in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > self.max_head_bytes:
            self._refuse()

    def on_headers_complete(self) -> None:
        size = sum(len(name) + len(value) for name, value in self.headers) + len(self.url)
        self._have_head()
        app, before = self.app, self.cycle
        if size > self.max_head_bytes:
            self.app = _too_large_head
        try:
            super().on_headers_complete()
        finally:
            self.app = app
        self._in_body = True
        if self.cycle is not before:  # else it is to be a WebSocket
            flag = Flag(transport=self.transport)
            self.cycle.message_event = flag  # type: ignore[assignment] # its task has not begun
            unanswered = [cycle for cycle in self._unanswered if not cycle.response_complete]
            self._unanswered = (*unanswered, self.cycle)

    def handle_websocket_upgrade(self) -> None:
        size = sum(len(name) + len(value) for name, value in self.headers) + len(self.url)
        if size > self.max_head_bytes:
            self._refuse()
        else:
            super().handle_websocket_upgrade()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_deadline_s, self._head_is_late)

    def _have_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.abort()

    def _refuse(self) -> None:
        """A head that has no end in sight."""
        self._have_head()
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()


class _Flow:
    """As uvicorn's FlowControl."""

    __slots__ = ("_transport", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.read_paused = False
        self.write_paused = False
        self._transport = transport
        self._writable = Flag(raised=True)

    async def drain(self) -> None:
        await self._writable.wait()

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._writable.set()


class _Queue(list[Any]):
    """As a deque, of which uvicorn uses this."""

    __slots__ = ()

    def appendleft(self, item: Any) -> None:
        self.insert(0, item)


def connection_class(head_deadline_s: float, max_head_bytes: int) -> type[asyncio.Protocol]:
    """The class of a server's connections: uvicorn makes them by itself, so their limits are the class's."""
    limits = {"head_deadline_s": head_deadline_s, "max_head_bytes": max_head_bytes}
    return type("LimitedConnection", (Connection,), limits)


async def _too_large_head(scope: Scope, receive: Receive, send: Send) -> None:
    """In place of the application, for a head that came whole and is too large."""
    problem = problem_of(InvalidRequest("the request's head is too large"))
    reply = problem_reply(problem, [(b"connection", b"close")])
    reply.status = 431
    await reply(scope, receive, send)

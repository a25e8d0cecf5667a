"""uvicorn's HTTP/1.1 connection, with what it lacks: a deadline and a limit for a request's head.

Without them a client that sends a letter now and then, or nothing at all, holds a connection for ever, and a head may
be as large as memory is. (uvicorn limits the time between requests only.)
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ropeway.domain.errors import InvalidRequest
from ropeway.serving.problems import problem_of, problem_reply
from ropeway.serving.replies import Receive, Scope, Send

__all__ = ["Connection", "connection_class"]


class Connection(HttpToolsProtocol):
    """One connection. `head_deadline_s` counts from when it opens, and from the first byte of each further request."""

    head_deadline_s: float
    max_head_bytes: int

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self._head_timer is None:
            self._expect_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > self.max_head_bytes:
            self._refuse()

    def on_headers_complete(self) -> None:
        size = sum(len(name) + len(value) for name, value in self.headers) + len(self.url)
        self._have_head()
        app = self.app
        if size > self.max_head_bytes:
            self.app = _too_large_head
        try:
            super().on_headers_complete()
        finally:
            self.app = app

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

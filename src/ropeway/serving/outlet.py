"""The writing end of a stream: started once, written within a deadline, kept alive, ended."""

from __future__ import annotations

import asyncio

from ropeway.serving.deadlines import Deadlines
from ropeway.serving.forms import Form
from ropeway.serving.options import GatewayOptions
from ropeway.serving.replies import Headers, Send

__all__ = ["Outlet", "Stalled"]

_HEADERS = (
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)


class Stalled(Exception):
    """A write was not taken within its deadline."""


class Outlet:
    """Writes to one reader. What the server cannot pass on makes `write` wait, so nothing piles up here."""

    __slots__ = ("_deadline_s", "_deadlines", "_heartbeat_s", "_loop", "_send", "_wrote_at_s", "form", "is_first")

    def __init__(self, send: Send, form: Form, options: GatewayOptions, deadlines: Deadlines) -> None:
        self.form = form
        self.is_first = True
        self._send = send
        self._deadlines = deadlines
        self._deadline_s = options.write_deadline_s
        self._heartbeat_s = options.heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._wrote_at_s = self._loop.time()

    async def start(self, headers: Headers = ()) -> None:
        kind = (b"content-type", self.form.content_type)
        await self._send({"type": "http.response.start", "status": 200, "headers": [kind, *_HEADERS, *headers]})
        await self.write(b"")  # the head goes out at once, even when no event is there yet

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Raises Stalled when the reader takes nothing for the deadline."""
        try:
            with self._deadlines.limit(self._deadline_s):
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            raise Stalled from None
        self._wrote_at_s = self._loop.time()

    async def control(self, type_: str, **data: object) -> None:
        await self.write(self.form.control(type_, data, first=self.is_first))
        self.is_first = False

    @property
    def beat_in_s(self) -> float:
        """Seconds until the next heartbeat is due."""
        return self._wrote_at_s + self._heartbeat_s - self._loop.time()

    async def beat(self) -> None:
        await self.write(self.form.heartbeat)

    async def end(self) -> None:
        await self.write(b"", more=False)

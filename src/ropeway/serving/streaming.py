"""What all streams do: begin, write what there is, wait for more, stay alive, and end in one of four ways.

The end of what is streamed; the client's leaving, which the server is asked for all the while; a client that takes
nothing, which is let go, as is one whose key is revoked; and the gateway's drain, which asks the client to come back,
to another gateway maybe.
"""

from __future__ import annotations

import logging
import random

from ropeway.serving.callers import caller_of
from ropeway.serving.forms import NDJSON_FORM, SSE_FORM, Form
from ropeway.serving.outlet import Outlet, Stalled
from ropeway.serving.parts import Parts
from ropeway.serving.replies import Headers, Receive, Reply, Scope, Send
from ropeway.serving.watches import Watch

__all__ = ["Stream"]

_log = logging.getLogger("ropeway.serving")


class Stream:
    """An answer that goes on. A kind of stream says what it streams in four methods."""

    __slots__ = ("_base", "_form", "_headers", "_parts", "_topic")

    def __init__(self, parts: Parts, topic: str, *, ndjson: bool, headers: Headers = ()) -> None:
        self._parts = parts
        self._topic = topic
        self._form: Form = NDJSON_FORM if ndjson else SSE_FORM
        self._headers = headers
        self._base = ""

    async def begin(self, watch: Watch) -> bool:
        """Whether there is, or may come, anything; else the answer is 204, which stops an EventSource."""
        raise NotImplementedError

    async def step(self, outlet: Outlet) -> bool:
        """Write what there is; whether that was the end."""
        raise NotImplementedError

    @property
    def is_behind(self) -> bool:
        """Whether there is more to write without waiting for a hint."""
        return False

    def look(self) -> None:
        """The next step is one that no hint asked for."""

    async def close(self, watch: Watch, departed: bool) -> None:
        """Let go; `departed` when the client left before the end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._base = scope.get("root_path", "")
        departed = False
        with self._parts.watches.open(caller_of(scope), receive, self._topic) as watch:
            try:
                if await self.begin(watch):
                    departed = await self._attend(
                        Outlet(send, self._form, self._parts.options, self._parts.deadlines), watch
                    )
                else:
                    await Reply(204, headers=self._headers)(scope, receive, send)
            finally:
                await self.close(watch, departed)

    async def _attend(self, outlet: Outlet, watch: Watch) -> bool:
        """Stream to the end, or to the client's or the gateway's; whether it was the client's."""
        try:
            await outlet.start(self._headers)
            await self._go_on(outlet, watch)
            if not watch.gone:
                await outlet.end()
        except Stalled:
            _log.info("a reader of %s took nothing for %g s", self._topic, self._parts.options.write_deadline_s)
            watch.hang_up()
            return True
        return watch.gone

    async def _go_on(self, outlet: Outlet, watch: Watch) -> None:
        try:
            while not await self.step(outlet):
                if outlet.beat_in_s <= 0:
                    await outlet.beat()
                if not (self.is_behind or watch.over):
                    # For a hint, or until it is time to say that we are still here, or to look all the same.
                    await watch.news(min(max(outlet.beat_in_s, 0), self._parts.options.recheck_s))
                    watch.heard()
                    if not watch.hinted:
                        self.look()
                if watch.over:
                    break
            else:
                return
        except Stalled:
            raise
        except Exception:
            _log.exception("a stream of %s broke; its reader is asked to come back", self._topic)
        if not (watch.gone or watch.expelled):
            await outlet.control("reconnect", after_ms=_spread_ms())


def _spread_ms() -> int:
    """When a reader should come back: spread, so that a thousand do not come at once."""
    return random.randrange(200, 2_000)  # noqa: S311 - a spread, not a secret

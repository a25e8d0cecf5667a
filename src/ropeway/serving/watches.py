"""Connections that stay open and wait: woken by hints, by their client's leaving, and by the gateway's drain."""

from __future__ import annotations

import asyncio
import contextlib

from ropeway.engines.base import Reading
from ropeway.serving.problems import Draining, TooManyStreams
from ropeway.serving.replies import Receive

__all__ = ["Watch", "Watches"]


class Watch:
    """One waiting connection. `gone`: its client left. `draining`: the gateway stops; say so and end."""

    __slots__ = ("_departure", "_hints", "_owner", "draining", "gone")

    def __init__(self, owner: Watches, receive: Receive, topics: tuple[str, ...]) -> None:
        self.gone = False
        self.draining = False
        self._owner = owner
        self._hints = owner.engine.listen(*topics)
        self._departure = asyncio.get_running_loop().create_task(self._await_departure(receive))

    async def wait(self, timeout_s: float) -> bool:
        """Whether anything happened within `timeout_s` seconds."""
        return bool(await self._hints.wait(timeout_s))

    @property
    def over(self) -> bool:
        """Whether there is no point in waiting on."""
        return self.gone or self.draining

    def wake(self) -> None:
        """Let it look again."""
        self._hints.fire("wake")

    def drain(self) -> None:
        self.draining = True
        self.wake()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._departure.cancel()
        self._hints.close()
        self._owner.leave(self)

    async def _await_departure(self, receive: Receive) -> None:
        with contextlib.suppress(Exception):  # a server that cannot say goodbye has lost its client too
            while (await receive())["type"] != "http.disconnect":
                pass
        self.gone = True
        self.wake()


class Watches:
    """All that wait at this gateway."""

    def __init__(self, engine: Reading, limit: int) -> None:
        self.engine = engine
        self.draining = False
        self._limit = limit
        self._open: set[Watch] = set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        return len(self._open) >= self._limit

    def open(self, receive: Receive, *topics: str) -> Watch:
        """A watch on these topics, for `with`. Raises Draining, TooManyStreams."""
        if self.draining:
            raise Draining
        if self.full:
            raise TooManyStreams(f"{self._limit} streams and waits are open, as many as this gateway may have")
        watch = Watch(self, receive, topics)
        self._open.add(watch)
        return watch

    def leave(self, watch: Watch) -> None:
        self._open.discard(watch)

    def drain(self) -> None:
        """Tell all of them, and let no more in."""
        self.draining = True
        for watch in tuple(self._open):
            watch.drain()

"""Connections that stay open and wait: woken by hints, by their client's leaving, and by the gateway's drain."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from ropeway.domain.caller import Caller
from ropeway.engines.base import Reading
from ropeway.serving.alarms import Alarms
from ropeway.serving.flag import Flag, departure_of
from ropeway.serving.problems import Draining, TooManyStreams
from ropeway.serving.replies import Receive
from ropeway.serving.stays import Stay, Stays

__all__ = ["Waiting", "Watch", "Watches"]

_WAKE = "wake"  # not of the engine
_OURS = frozenset({_WAKE})


class Waiting(Protocol):
    """What stays open at a gateway."""

    stay: Stay | None

    def drain(self) -> None:
        """The gateway stops: say so, and end."""
        ...

    def expel(self) -> None:
        """Its key is over: end."""
        ...


class Watch:
    """One waiting connection.

    `gone`: its client left. `draining`: the gateway stops; say so and end. `expelled`: its key is over; end. `hinted`:
    the last wait was ended by a hint, and not by its time.
    """

    __slots__ = ("_departure", "_hints", "_owner", "draining", "expelled", "gone", "hinted", "stay")

    def __init__(self, owner: Watches, receive: Receive, topics: tuple[str, ...]) -> None:
        self.gone = False
        self.draining = False
        self.expelled = False
        self.hinted = True
        self.stay: Stay | None = None
        self._owner = owner
        self._hints = owner.engine.listen(*topics)
        self._departure = departure_of(receive) or asyncio.get_running_loop().create_task(self._asked(receive))
        if isinstance(self._departure, Flag):
            self._departure.call = self._told
            self._told()

    async def wait(self, timeout_s: float) -> None:
        """Until anything happened, `timeout_s` seconds at the most."""
        self.hinted = bool(await self._hints.wait(timeout_s) - _OURS)

    def news(self, timeout_s: float) -> asyncio.Future[None]:
        """Done when something happened, or after `timeout_s` seconds and up to a tick more. Then call `heard`.

        `wait` for streams, of which there are thousands: without a timer and without a frame of its own.
        """
        self._owner.alarms.set(self, timeout_s)
        return self._hints.news()

    def heard(self) -> None:
        """What happened so far is known."""
        self.hinted = bool(self._hints.forget() - _OURS)

    @property
    def over(self) -> bool:
        """Whether there is no point in waiting on."""
        return self.gone or self.draining or self.expelled

    def wake(self) -> None:
        """Let it look again."""
        self._hints.fire(_WAKE)

    def drain(self) -> None:
        self.draining = True
        self.wake()

    def expel(self) -> None:
        self.expelled = True
        self.wake()

    def hang_up(self) -> None:
        """Cut the connection off, with all that its client has not taken; other servers than ours close it in time."""
        if isinstance(self._departure, Flag) and self._departure.transport is not None:
            self._departure.transport.abort()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._departure, Flag):
            self._departure.call = None
        else:
            self._departure.cancel()
        self._owner.alarms.drop(self)
        self._hints.close()
        self._owner.leave(self)

    def _told(self) -> None:
        """By a connection of ours: something came of the client, or it is gone."""
        if isinstance(self._departure, Flag) and self._departure.gone:
            self.gone = True
            self.wake()

    async def _asked(self, receive: Receive) -> None:
        """The same of another server, which must be asked all the while."""
        with contextlib.suppress(Exception):  # a server that cannot say goodbye has lost its client too
            while (await receive())["type"] != "http.disconnect":
                pass
        self.gone = True
        self.wake()


class Watches:
    """All that wait at this gateway."""

    def __init__(self, engine: Reading, limit: int, stays: Stays, alarms: Alarms) -> None:
        self.engine = engine
        self.stays = stays
        self.alarms = alarms
        self.draining = False
        self._limit = limit
        self._open: set[Waiting] = set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        return len(self._open) >= self._limit

    def open(self, caller: Caller, receive: Receive, *topics: str) -> Watch:
        """A watch on these topics, for `with`. Raises Draining, TooManyStreams, RateLimited."""
        self._check_room(caller)
        watch = Watch(self, receive, topics)
        self.enter(watch, caller)
        return watch

    def enter(self, watch: Waiting, caller: Caller) -> None:
        """Count this in, until it leaves. Raises as `open` does."""
        self._check_room(caller)
        watch.stay = self.stays.enter(caller, watch.expel)
        self._open.add(watch)

    def leave(self, watch: Waiting) -> None:
        if watch in self._open and watch.stay is not None:
            self.stays.leave(watch.stay)
        self._open.discard(watch)

    def _check_room(self, caller: Caller) -> None:
        if self.draining:
            raise Draining
        if self.full:
            raise TooManyStreams(f"{self._limit} streams and waits are open, as many as this gateway may have")
        self.stays.check(caller)

    def drain(self) -> None:
        """Tell all of them, and let no more in."""
        self.draining = True
        for watch in tuple(self._open):
            watch.drain()

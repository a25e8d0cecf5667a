"""Hints out of the servers. One subscription a topic on the partition's own link; and for queues, one wake at a time.

A worker that waits for a queue pops from that queue's wake set, which blocks: a job that comes wakes one worker, and
the lease of that one leaves a token for the next when there is more. What is popped while nobody waits is put back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from ropeway.domain.errors import EngineUnavailable
from ropeway.engines.hints import Board, Listener
from ropeway.engines.redis.link import Link, LinkDown, Refused
from ropeway.engines.redis.route import Route

__all__ = ["Hearing", "RedisBoard"]

log = logging.getLogger("ropeway.engine")

BLOCK_S = 5.0  # reliability.md, 9: a blocking call is short, so that a dead line is noticed
LOOK_S = 2.0  # between two looks at a link on which nothing is said
RETRY_S = 0.5

_QUEUE = "queue:"


class RedisBoard(Board):
    """A board that tells which topics somebody listens to, and for which queues somebody waits this moment."""

    def __init__(self) -> None:
        super().__init__()
        self.joined: Callable[[str], None] = _ignore
        self.left: Callable[[str], None] = _ignore
        self.wanted: Counter[str] = Counter()
        self.changed = asyncio.Event()

    def listen(self, *topics: str) -> Listener:
        return _WaitingListener(self, topics)

    def join(self, listener: Listener, topics: Iterable[str]) -> None:
        new = [topic for topic in topics if not self.hears(topic)]
        super().join(listener, topics)
        for topic in new:
            self.joined(topic)

    def leave(self, listener: Listener, topics: Iterable[str]) -> None:
        heard = [topic for topic in topics if self.hears(topic)]
        super().leave(listener, topics)
        for topic in heard:
            if not self.hears(topic):
                self.left(topic)

    def want(self, topics: Iterable[str], step: int) -> None:
        """Somebody begins (+1) or ceases (-1) to wait for queues."""
        for topic in topics:
            self.wanted[topic] += step
            if self.wanted[topic] in (0, 1):
                self.changed.set()

    def waits(self, topic: str) -> bool:
        return self.wanted[topic] > 0


class _WaitingListener(Listener):
    """Tells the board while it waits."""

    __slots__ = ("_queues", "_watching")

    def __init__(self, board: RedisBoard, topics: Iterable[str]) -> None:
        super().__init__(board, topics)
        self._watching = board
        self._queues = [topic for topic in self._topics if topic.startswith(_QUEUE)]

    async def _sleep(self, timeout_s: float | None) -> None:
        self._watching.want(self._queues, +1)
        try:
            await super()._sleep(timeout_s)
        finally:
            self._watching.want(self._queues, -1)


class Hearing:
    """One partition's hints, fired on the board. `start` after its route can be used."""

    def __init__(self, board: RedisBoard, route: Route, root: str) -> None:
        self._board = board
        self._route = route
        self._channel = f"{root}:hint:"
        self._wake = f"{root}:wake:"
        self._link: Link | None = None
        self._blocked: Link | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._subscribe()), asyncio.create_task(self._pop())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._blocked is not None:
            self._blocked.close("the engine is shut")

    def on_push(self, push: list[Any]) -> None:
        """For the route's links: a message of a subscription."""
        if push[0] == "smessage":
            self._board.fire((push[1][len(self._channel) :],))

    def joined(self, topic: str) -> None:
        """Somebody listens. What is read over the same link afterwards is read when the subscription stands."""
        self._say("SSUBSCRIBE", topic)

    def left(self, topic: str) -> None:
        """Nobody listens any more."""
        self._say("SUNSUBSCRIBE", topic)

    def _say(self, command: str, topic: str) -> None:
        link = self._route.current
        if link is not None and _is_told(topic):
            link.tell(command, self._channel + topic)

    async def _subscribe(self) -> None:
        """Keep the route's link subscribed to what is listened to; what a new link may have missed is looked at."""
        while True:
            try:
                link = await self._route.link(asyncio.get_running_loop().time() + BLOCK_S)
            except EngineUnavailable as error:
                log.warning("no hints: %s", error)
                continue
            first, self._link = self._link is None, link
            topics = [topic for topic in self._board.topics() if _is_told(topic)]
            for topic in topics:
                link.tell("SSUBSCRIBE", self._channel + topic)
            if not first:
                self._board.fire(self._board.topics())
            await self._watched(link)

    async def _watched(self, link: Link) -> None:
        """Until the link is closed; one on which nothing moves is asked whether it lives."""
        while not link.closed.done():
            await asyncio.wait([link.closed], timeout=LOOK_S)
            if link.is_open:
                with suppress(LinkDown):
                    await link.do("PING")

    async def _pop(self) -> None:
        """Wait, for those who wait, for work in their queues."""
        while True:
            queues = self._wanted()
            if not queues:
                self._board.changed.clear()
                await self._board.changed.wait()
                continue
            try:
                await self._pop_once(queues)
            except (LinkDown, Refused, EngineUnavailable, OSError) as error:
                log.warning("no wake-ups: %s", error)
                await asyncio.sleep(RETRY_S)
                self._board.fire(topic for topic in self._board.topics() if topic.startswith(_QUEUE))

    def _wanted(self) -> list[str]:
        return sorted(topic for topic, waiting in self._board.wanted.items() if waiting > 0)

    async def _pop_once(self, topics: list[str]) -> None:
        if self._blocked is None or not self._blocked.is_open:
            self._blocked = await self._route.extra()
        link = self._blocked
        keys = [self._wake + topic.removeprefix(_QUEUE) for topic in topics]
        popping = link.do("BZPOPMIN", *keys, BLOCK_S, patience_s=2 * BLOCK_S)
        self._board.changed.clear()
        while not popping.done():
            changed = asyncio.ensure_future(self._board.changed.wait())
            await asyncio.wait([popping, changed], return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            self._board.changed.clear()
            if not popping.done() and self._wanted() != topics:
                await self._unblock(link)
                break
        popped = await popping
        if isinstance(popped, Refused):
            link.close(str(popped))  # another server holds the queue now
            raise popped
        if popped is not None:
            await self._tell(link, popped[0])

    async def _unblock(self, link: Link) -> None:
        """End the blocking call: others are waited for now."""
        with suppress(LinkDown, EngineUnavailable):
            main = await self._route.link(asyncio.get_running_loop().time() + BLOCK_S)
            await main.do("CLIENT", "UNBLOCK", link.client_id)

    async def _tell(self, link: Link, key: str) -> None:
        topic = _QUEUE + key.removeprefix(self._wake)
        if self._board.waits(topic):
            self._board.fire((topic,))
            await asyncio.sleep(0)  # who was woken has begun to look before the next is waited for
        else:
            await link.do("ZADD", key, 0, "1")


def _is_told(topic: str) -> bool:
    """Whether a topic is one of subscriptions. Queues are heard of by popping."""
    return not topic.startswith(_QUEUE)


def _ignore(_topic: str) -> None:
    return None

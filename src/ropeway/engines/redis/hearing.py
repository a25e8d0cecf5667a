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
from ropeway.engines.redis.route import Route, Unsafe

__all__ = ["Hearing", "RedisBoard"]

log = logging.getLogger("ropeway.engine")

BLOCK_S = 5.0  # reliability.md, 9: a blocking call is short, so that a dead line is noticed
LOOK_S = 2.0  # between two looks at a link on which nothing is said
RETRY_S = 0.5

_QUEUE = "queue:"
_JOB = "job:"
_END = "end:"
_LIFECYCLE = "lifecycle"
_OTHER = "other"


class RedisBoard(Board):
    """A board that tells of the first listener to a topic, and for which queues somebody waits this moment.

    `wishes` are called when that alters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.joined: Callable[[str], None] = _ignore
        self.wanted: Counter[str] = Counter()
        self.wishes: list[Callable[[], None]] = []

    def listen(self, *topics: str) -> Listener:
        return _WaitingListener(self, topics)

    def join(self, listener: Listener, topics: Iterable[str]) -> None:
        new = [topic for topic in topics if not self.hears(topic)]
        super().join(listener, topics)
        for topic in new:
            self.joined(topic)

    def want(self, topics: Iterable[str], step: int) -> None:
        """Somebody begins (+1) or ceases (-1) to wait for queues."""
        altered = False
        for topic in topics:
            before = self.wanted[topic]
            self.wanted[topic] = before + step
            altered = altered or 0 in (before, before + step)
        if altered:
            for wish in self.wishes:
                wish()

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
        self._channels = {
            _OTHER: f"{root}:hints",
            _JOB: f"{root}:hints:jobs",
            _END: f"{root}:hints:ends",
            _LIFECYCLE: f"{root}:hints:lifecycle",
        }
        self._prefixes = {self._channels[_JOB]: _JOB, self._channels[_END]: _END}
        self._heard: set[str] = set()  # kinds of topics; once heard they are for good, since nothing costs less
        self._wake = f"{root}:wake:"
        self._blocked: Link | None = None
        self._asked: list[str] | None = None  # what the blocking call waits for
        self._wish = asyncio.Event()  # other queues are waited for
        self._tasks: list[asyncio.Task[None]] = []
        self._releasing: asyncio.Task[None] | None = None
        board.wishes.append(self._reconsider)

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._subscribe()), asyncio.create_task(self._pop())]

    async def stop(self) -> None:
        self._board.wishes.remove(self._reconsider)
        tasks = self._tasks if self._releasing is None else [*self._tasks, self._releasing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._blocked is not None:
            self._blocked.close("the engine is shut")

    async def prove(self, link: Link) -> None:
        """Whether the user may subscribe: the refusal of a subscription would come among other calls' replies.

        Raises Unsafe, with the remedy.
        """
        link.tell("SSUBSCRIBE", self._channels[_OTHER])
        try:
            await link.do("PING")
        except LinkDown as error:
            if "NOPERM" in str(error):
                channels = f"{self._channels[_OTHER]}*"
                raise Unsafe(f"the user may not subscribe to hints: allow &{channels}; {error}") from error
            raise
        link.tell("SUNSUBSCRIBE", self._channels[_OTHER])

    def on_push(self, push: list[Any]) -> None:
        """For the route's links: a message of topics, or ids of jobs; of ends, each one's output in a line after."""
        if push[0] == "smessage":
            prefix = self._prefixes.get(push[1], "")
            words, _, outputs = push[2].partition("\n")
            topics = [topic for word in words.split(" ") if self._board.hears(topic := prefix + word)]
            if topics:
                self._board.fire(topics, _told(prefix, words, outputs))

    def joined(self, topic: str) -> None:
        """Somebody listens. What is read over the same link afterwards is read when the subscription stands."""
        kind = _kind(topic)
        if kind in self._channels and kind not in self._heard:
            self._heard.add(kind)
            self._say("SSUBSCRIBE", kind)

    async def tell(self, topics: Iterable[str]) -> None:
        """Hint to every process that listens; to nobody when the server does not answer."""
        with suppress(LinkDown, EngineUnavailable):
            link = await self._route.link(asyncio.get_running_loop().time() + BLOCK_S)
            for topic in topics:
                channel = self._channels[_kind(topic)]
                await link.do("SPUBLISH", channel, topic.removeprefix(self._prefixes.get(channel, "")))

    def _say(self, command: str, kind: str) -> None:
        link = self._route.current
        if link is not None:
            link.tell(command, self._channels[kind])

    async def _subscribe(self) -> None:
        """Keep the route's link subscribed to what is listened to; what a new link may have missed is looked at."""
        is_first = True
        while True:
            try:
                link = await self._route.link(asyncio.get_running_loop().time() + BLOCK_S)
            except EngineUnavailable as error:
                log.warning("no hints: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            for kind in self._heard:
                self._say("SSUBSCRIBE", kind)
            if not is_first:
                self._renewed()
            is_first = False
            await self._watched(link)

    def _renewed(self) -> None:
        """The link is another: the one that blocks may lead to a server of the past, and hints may have been missed."""
        if self._blocked is not None:
            self._blocked.close("there is another link")
        self._board.fire(self._board.topics())

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
                self._wish.clear()
                await self._wish.wait()
                continue
            try:
                await self._pop_once(queues)
            except (LinkDown, Refused, EngineUnavailable) as error:
                log.info("no wake-ups: %s", error)
                await asyncio.sleep(RETRY_S)
                self._board.fire(queues)

    def _reconsider(self) -> None:
        """Other queues are waited for; a moment later, maybe the same again."""
        self._wish.set()
        if self._asked is not None:
            asyncio.get_running_loop().call_soon(self._release)

    def _release(self) -> None:
        """End the blocking call when it does not wait for what is wanted."""
        if self._asked is not None and self._asked != self._wanted() and self._blocked is not None:
            self._asked = None  # once
            self._releasing = asyncio.ensure_future(self._unblock(self._blocked))

    def _wanted(self) -> list[str]:
        return sorted(topic for topic, waiting in self._board.wanted.items() if waiting > 0)

    async def _pop_once(self, topics: list[str]) -> None:
        link = await self._blocking_link()
        keys = [self._wake + topic.removeprefix(_QUEUE) for topic in topics]
        popping = link.do("BZPOPMIN", *keys, BLOCK_S, patience_s=BLOCK_S + self._route.timeout_s)
        self._asked = topics
        try:
            popped = await popping  # at once: all from here to a lease is on an idle system's way to a job
        finally:
            self._asked = None
        if isinstance(popped, Refused):
            link.close(str(popped))  # another server holds the queue now
            raise popped
        if popped is not None:
            await self._hand_on(link, popped[0])

    async def _blocking_link(self) -> Link:
        if self._blocked is None or not self._blocked.is_open:
            await self._route.link(asyncio.get_running_loop().time() + BLOCK_S)  # there is a server, and it is safe
            self._blocked = await self._route.extra()
        return self._blocked

    async def _unblock(self, link: Link) -> None:
        """End the blocking call: others are waited for now."""
        with suppress(LinkDown, EngineUnavailable):
            main = await self._route.link(asyncio.get_running_loop().time() + BLOCK_S)
            await main.do("CLIENT", "UNBLOCK", link.client_id)

    async def _hand_on(self, link: Link, key: str) -> None:
        """Wake who waits for what was popped; a wake-up that nobody waits for goes back to where others find it."""
        topic = _QUEUE + key.removeprefix(self._wake)
        if self._board.waits(topic):
            self._board.fire((topic,))
            await asyncio.sleep(0)  # who was woken has begun to look before the next is waited for
        else:
            await link.do("ZADD", key, 0, "1")


def _told(prefix: str, words: str, outputs: str) -> dict[str, str] | None:
    """The outputs that came, by topic."""
    if not outputs:
        return None
    lines = zip(words.split(" "), outputs.split("\n"), strict=True)
    return {prefix + word: output for word, output in lines if output}


def _kind(topic: str) -> str:
    """Which hints tell of a topic: queues are heard of by popping, all else by subscriptions."""
    return next((kind for kind in (_QUEUE, _JOB, _END, _LIFECYCLE) if topic.startswith(kind)), _OTHER)


def _ignore(_topic: str) -> None:
    return None

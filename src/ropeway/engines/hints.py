"""Hints within a process: who waits for what, woken without polling.

Topics: `queue:<name>` (work may be ready), `job:<id>` (its log grew), `end:<id>` (it ended, or has gone),
`worker:<session>` (a job of it was asked to cancel), `input:<id>` (something was sent up to a running job), `upkeep`
(something waits for a time), `lifecycle` (any job changed state). A hint says only "look again"; that of an end may
bring what one would find.

A hint may be lost, so whoever waits looks again now and then all the same. What is found so cost somebody seconds: it
is told in the log, with the topic of the hint that did not come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

__all__ = ["Board", "Listener", "tell_unhinted"]

LATE_MS = 1_000  # hints take milliseconds: what lay there for less came just now, as somebody looked


class Listener:
    """Waits for hints on its topics. Hints that come between two waits are kept, as a set.

    `told`: of a listener on one `end:<id>`, the output of that job, when it succeeded and the last hint brought it.
    `heard`, where it is set, is called with the topic of every hint as it comes, before any task is woken.
    """

    __slots__ = ("_board", "_fired", "_loop", "_topics", "_waiter", "heard", "told")

    def __init__(self, board: Board, topics: Iterable[str]) -> None:
        self._board = board
        self._topics = tuple(topics)  # there are listeners by the ten thousand: a set would take 200 bytes more
        self._fired: set[str] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.heard: Callable[[str], None] | None = None
        self.told: str | None = None
        self._loop = asyncio.get_running_loop()
        board.join(self, self._topics)

    async def wait(self, timeout_s: float | None = None) -> set[str]:
        """The topics hinted at since the last wait; empty when `timeout_s` seconds passed without any.

        Only one task may wait on a listener at a time.
        """
        if not self._fired:
            await self._sleep(timeout_s)
        fired, self._fired = self._fired, None
        return fired or set()

    def news(self) -> asyncio.Future[None]:
        """`wait` without a timer and without frames, for those who wait by the ten thousand; not for `queue:` topics.

        Done at the next hint, or now if there was one since `forget`, which is to be called after.
        """
        waiter = self._waiter = self._loop.create_future()
        if self._fired:
            waiter.set_result(None)
        return waiter

    def forget(self) -> set[str]:
        """Take the hints so far as heard; their topics."""
        fired, self._waiter, self._fired = self._fired, None, None
        return fired or set()

    async def _sleep(self, timeout_s: float | None) -> None:
        waiter = self._waiter = self._loop.create_future()
        timer = None if timeout_s is None else self._loop.call_later(max(timeout_s, 0), _wake, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def fire(self, topic: str, told: str | None = None) -> None:
        """Called by the board, in the listener's loop."""
        if self._fired is None:
            self._fired = set()
        self._fired.add(topic)
        self.told = told
        if self.heard is not None:
            self.heard(topic)
        if self._waiter is not None:
            _wake(self._waiter)

    def close(self) -> None:
        """Hear no more; a waiting task is woken."""
        self._board.leave(self, self._topics)
        if self._waiter is not None:
            _wake(self._waiter)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Board:
    """The listeners of one process and event loop, by topic."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}

    def listen(self, *topics: str) -> Listener:
        return Listener(self, topics)

    def join(self, listener: Listener, topics: Iterable[str]) -> None:
        for topic in topics:
            self._listeners.setdefault(topic, []).append(listener)

    def leave(self, listener: Listener, topics: Iterable[str]) -> None:
        for topic in topics:
            listeners = self._listeners.get(topic)
            if listeners is None or listener not in listeners:
                continue
            listeners.remove(listener)
            if not listeners:
                del self._listeners[topic]

    def hears(self, topic: str) -> bool:
        """Whether anyone listens: what nobody hears need not be said."""
        return topic in self._listeners

    def topics(self) -> tuple[str, ...]:
        """All that somebody listens to."""
        return tuple(self._listeners)

    def fire(self, topics: Iterable[str], told: Mapping[str, str] | None = None) -> None:
        """Wake all who listen on these topics. Call it in the loop's own thread.

        `told`: by topic, the outputs that came with the hints.
        """
        for topic in topics:
            word = None if told is None else told.get(topic)
            for listener in tuple(self._listeners.get(topic, ())):
                listener.fire(topic, word)


def tell_unhinted(log: logging.Logger, topic: str, found: str, late_ms: int) -> bool:
    """Log what a look found though no hint on `topic` came in `late_ms`; whether that was long enough to be told."""
    if late_ms < LATE_MS:
        return False
    log.info("no hint on %s came: %s was found by looking all the same, after %.1f s", topic, found, late_ms / 1000)
    return True


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

"""Deadlines by the thousand: one timer for all of them, which looks now and then whose time is up.

`asyncio.timeout` sets a timer for each use; reading a body that is there already takes less time than that. These end
up to a twentieth of their length late.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["Deadlines", "Limit"]

TICK_SHARE = 20
LEAST_TICK_S, MOST_TICK_S = 0.005, 1.0


class Limit:
    """For `with`: what is awaited inside ends with TimeoutError when it takes too long."""

    __slots__ = ("_cancelling", "_deadlines", "_is_over", "_task", "due_s")

    def __init__(self, deadlines: Deadlines, due_s: float) -> None:
        self._deadlines = deadlines
        self._is_over = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.due_s = due_s

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a limit is for a task")
        self._cancelling = self._task.cancelling()
        self._deadlines.enter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.leave(self)
        if not self._is_over or self._task is None:
            return
        is_ours = self._task.uncancel() <= self._cancelling  # else a cancel came from elsewhere meanwhile, and goes on
        if is_ours and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def end(self) -> None:
        """The time is up."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()


class Deadlines:
    """Limits of one loop that are running."""

    def __init__(self) -> None:
        self._running: set[Limit] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tick_s = MOST_TICK_S

    def limit(self, seconds: float) -> Limit:
        """A limit that begins now."""
        loop = asyncio.get_running_loop()
        if self._timer is None or seconds < self._tick_s * TICK_SHARE or loop is not self._loop:
            self._set_timer(loop, seconds)
        return Limit(self, loop.time() + seconds)

    def enter(self, limit: Limit) -> None:
        self._running.add(limit)

    def leave(self, limit: Limit) -> None:
        self._running.discard(limit)

    def _set_timer(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        tick_s = min(max(seconds / TICK_SHARE, LEAST_TICK_S), MOST_TICK_S)
        if self._timer is not None and loop is self._loop:
            if tick_s >= self._tick_s:
                return
            self._timer.cancel()
        self._loop, self._tick_s = loop, tick_s
        self._timer = loop.call_later(tick_s, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for limit in [limit for limit in self._running if limit.due_s <= now_s]:
            self._running.discard(limit)
            limit.end()
        if self._running:
            self._timer = loop.call_later(self._tick_s, self._sweep, loop)
        else:
            self._timer = None
            self._tick_s = MOST_TICK_S

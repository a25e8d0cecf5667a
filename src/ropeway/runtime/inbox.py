"""Ways into the event loop: for other threads, many calls for one wake-up; and for its own tasks, a flag to wait on."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Inbox", "Wake"]

log = logging.getLogger("ropeway.worker")


class Inbox:
    """Calls that other threads want made in the loop, in the order in which they came."""

    __slots__ = ("_calls", "_thread_id", "_woken", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._thread_id = threading.get_ident()
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._woken = False

    @property
    def here(self) -> bool:
        """Whether the caller is in the loop's own thread."""
        return threading.get_ident() == self._thread_id

    def post(self, call: Callable[..., None], *args: Any) -> None:
        """Have `call(*args)` made in the loop. From any thread; after the loop has closed it goes nowhere."""
        self._calls.append((call, args))
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed: nobody is left to hear
                self._calls.clear()

    def _drain(self) -> None:
        # Lowered before the calls are taken: whoever comes after that wakes the loop again.
        self._woken = False
        for _ in range(len(self._calls)):
            call, args = self._calls.popleft()
            try:
                call(*args)
            except Exception:
                log.exception("a call from another thread failed")


class Wake:
    """A flag that one task waits for, and takes down on waking."""

    __slots__ = ("_raised", "_waiter")

    def __init__(self) -> None:
        self._raised = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Raise the flag. In the loop's thread."""
        self._raised = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        """Until the flag is raised; at once when it was since the last wait."""
        if not self._raised:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._raised = False

"""An event loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from ropeway.domain.errors import EngineUnavailable, InvalidRequest

__all__ = ["Bridge", "LoopThread"]

T = TypeVar("T")


class Bridge(Protocol):
    """A way from blocking code to a loop on another thread."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, from there."""
        ...


class LoopThread:
    """Starts at the first `run`, from any thread; ends at `stop`, for good. Not usable across a fork once started."""

    def __init__(self, on_start: Callable[[], Awaitable[None]], on_stop: Callable[[], Awaitable[None]]) -> None:
        """`on_start` and `on_stop` are awaited on the loop: what lives there is opened and closed there."""
        self._on_start = on_start
        self._on_stop = on_stop
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._is_over = False
        self._calls: set[asyncio.Task[Any]] = set()  # of the loop's thread

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, from the loop's thread; interrupted here, it is cancelled there.

        Raises EngineUnavailable when the client is closed meanwhile.
        """
        try:
            loop = self._started()
        except BaseException:
            work.close()
            raise
        return _Crossing(loop, work, self._calls).result()

    def stop(self) -> None:
        """Close what lives on the loop, end it and its thread."""
        atexit.unregister(self._abandon)
        with self._guard:
            self._is_over = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None or self._pid != os.getpid():
                return
            try:
                asyncio.run_coroutine_threadsafe(self._cancel_calls(), loop).result()
                asyncio.run_coroutine_threadsafe(_await(self._on_stop), loop).result()
            finally:
                _end(loop, thread)

    def _abandon(self) -> None:
        """At the end of a program that did not close its client: the thread is about to stand still, and whoever waited
        for it would wait for ever. What was accepted is the engine's already; it is too late to start anything."""
        self._is_over = True
        self._loop = None

    async def _cancel_calls(self) -> None:
        """Whoever still waits for a call is told now, not never."""
        calls = tuple(self._calls)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _started(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None:
            if self._pid != os.getpid():
                raise InvalidRequest("this client was used before the process forked; make one in each process")
            return loop
        with self._guard:
            if self._is_over:
                raise EngineUnavailable("the client is closed")
            return self._loop or self._start()

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = _new_loop()
        thread = threading.Thread(target=loop.run_forever, name="ropeway-client", daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(_await(self._on_start), loop).result()
        except BaseException:
            _end(loop, thread)
            raise
        self._loop, self._thread, self._pid = loop, thread, os.getpid()
        atexit.register(self._abandon)
        return loop


class _Crossing(Generic[T]):
    """One coroutine's way to the loop's thread and back.

    `asyncio.run_coroutine_threadsafe` does it with two futures and a condition: 100 us of CPU where this takes 67.
    """

    __slots__ = ("_arrived", "_calls", "_loop", "_task", "_work")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], calls: set[asyncio.Task[Any]]
    ) -> None:
        self._loop = loop
        self._calls = calls
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self._arrived = threading.Lock()

    def result(self) -> T:
        self._arrived.acquire()
        try:
            self._loop.call_soon_threadsafe(self._start)
        except RuntimeError as error:  # the loop was closed a moment ago
            self._work.close()
            raise EngineUnavailable("the client is closed") from error
        try:
            self._arrived.acquire()
        except BaseException:  # Ctrl-C
            self._loop.call_soon_threadsafe(self._cancel)
            raise
        assert self._task is not None
        try:
            return self._task.result()
        except asyncio.CancelledError as error:
            raise EngineUnavailable("the client was closed during this call") from error

    def _start(self) -> None:
        self._task = self._loop.create_task(self._work)
        self._calls.add(self._task)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._calls.discard(task)
        self._arrived.release()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def _await(call: Callable[[], Awaitable[None]]) -> None:
    await call()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not on Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()

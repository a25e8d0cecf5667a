"""An event loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from ropeway.domain.errors import InvalidRequest

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """Starts at the first `run`, any thread may `run`, ends at `stop`. Not usable across a fork once started."""

    def __init__(self, on_start: Callable[[], Awaitable[None]], on_stop: Callable[[], Awaitable[None]]) -> None:
        """`on_start` and `on_stop` are awaited on the loop: what lives there is opened and closed there."""
        self._on_start = on_start
        self._on_stop = on_stop
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, from the loop's thread; interrupted here, it is cancelled there."""
        try:
            loop = self._started()
        except BaseException:
            work.close()
            raise
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Close what lives on the loop, end it and its thread. A later `run` would start anew."""
        with self._guard:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None or self._pid != os.getpid():
                return
            try:
                asyncio.run_coroutine_threadsafe(_await(self._on_stop), loop).result()
            finally:
                _end(loop, thread)

    def _started(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None:
            if self._pid != os.getpid():
                raise InvalidRequest("this client was used before the process forked; make one in each process")
            return loop
        with self._guard:
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
        return loop


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

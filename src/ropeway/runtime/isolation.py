"""Threads for blocking code: they grow to thousands when code really blocks, and end when they have nothing to do.

1. Threads are started only when most of those there are stand inside a call, and what waits would take longer than a
   few ms at the present pace. A flood of calls that return at once is served by a handful, also on a busy machine,
   where idle threads only wait for a core; 4,000 sleeping calls get their 4,000.
2. The stack is large on purpose. It is address space: 4,000 waiting threads take 17 KiB of memory each with 64 KiB of
   stack and with 4 MiB alike. But with 256 KiB, a recursion through C (`sorted(key=...)`, `repr`, SQLite) kills the
   process where it should raise RecursionError; on 3.11 some still did with 1536 KiB, on 3.13 with 2 MiB. Where the
   system gives huge pages to everyone, it may back each stack of 2 MiB or more with one: there we stay below.
   `threading.stack_size` is the whole process's: it is set just around each start.
3. The threads are daemons: one that never returns must not keep the process from ending.
4. The interpreter's switch interval grows with them: each thread that waits for the interpreter wakes once an interval
   to ask for it, and 2,000 of them at 0.5 ms left no CPU for the work (2,200 us a job against 790, and lost sessions).
5. `Thread.start` waits until the thread has begun. On a busy machine that is a wait for a core, twice, for each of
   4,000 threads: 2 to 4 s against 0.7 s, with a third more CPU. Ours do not wait; should a later Python start threads
   in another way, they do again.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ropeway.runtime.inbox import Inbox

__all__ = ["LARGE_STACK_BYTES", "SAFE_STACK_BYTES", "ThreadCounts", "ThreadPool", "default_stack_bytes"]

T = TypeVar("T")

log = logging.getLogger("ropeway.worker")

LARGE_STACK_BYTES = 4 * 1024 * 1024  # oddity 2
SAFE_STACK_BYTES = 1792 * 1024
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
IDLE_S = 10.0  # an idle thread costs about 20 KiB and no CPU; starting one costs 0.1 to 0.2 ms
AT_ONCE = 4  # threads that are started without a second look
LOOK_S = 0.001  # between two looks at what waits, while anything does
SWITCH_S_PER_THREAD = 5e-6  # 2,000 threads: 10 ms, twice the interpreter's own default
STARTS_AT_ONCE = 128  # in one look: more would stand in the event loop's way to the interpreter
PATIENCE_LOOKS = 5  # what is done within so many looks at the present pace needs no more threads


class ThreadCounts(NamedTuple):
    """`busy` includes `abandoned`: threads whose job was given up while they went on."""

    alive: int
    busy: int
    idle: int
    abandoned: int
    peak: int


def default_stack_bytes(huge_pages: Path = HUGE_PAGES) -> int:
    """The largest stack that costs no memory here."""
    try:
        everywhere = "[always]" in huge_pages.read_text()
    except OSError:
        everywhere = False
    return SAFE_STACK_BYTES if everywhere else LARGE_STACK_BYTES


class _NotAwaited(threading.Event):
    """That a thread has begun: told to whoever asks, and not waited for."""

    def wait(self, timeout: float | None = None) -> bool:
        return True


class _Call(NamedTuple):
    run: Callable[[Any], Any]
    arg: Any
    then: Callable[[Any, Any], None]


class ThreadPool:
    """Runs calls on at most `limit` threads. Everything but the calls themselves belongs to the event loop."""

    def __init__(self, inbox: Inbox, limit: int, *, stack_bytes: int | None = None, idle_s: float = IDLE_S) -> None:
        self.limit = limit
        self.outstanding = 0
        self.abandoned = 0
        self._inbox = inbox
        self._stack_bytes = stack_bytes or default_stack_bytes()
        self._idle_s = idle_s
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._alive = 0
        self._peak = 0
        self._started = 0
        self._done = 0  # roughly: counted without a lock, and read only to judge the pace
        self._inside: set[int] = set()  # threads in a call
        self._wanted = threading.Event()
        self._grower: threading.Thread | None = None
        self._closed = False
        self._switch_s = sys.getswitchinterval()

    @property
    def free(self) -> int:
        """How many calls could start now."""
        return self.limit - self.outstanding

    @property
    def counts(self) -> ThreadCounts:
        alive = self._alive
        busy = min(self.outstanding, alive)
        return ThreadCounts(alive, busy, alive - busy, self.abandoned, self._peak)

    def submit(self, run: Callable[[Any], Any], arg: Any, then: Callable[[Any, Any], None]) -> None:
        """Call `run(arg)`, which never raises, on a thread, and then `then(arg, what it returned)` in the loop."""
        self.outstanding += 1
        self._calls.put(_Call(run, arg, then))
        if self.outstanding > self._alive and self._alive < self.limit:
            if self._alive < AT_ONCE:
                self._start()
            elif not self._wanted.is_set():
                self._grow_soon()

    async def step(self, call: Callable[[], T]) -> T:
        """Await a blocking call, made with the caller's own context variables."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        context = contextvars.copy_context()
        self.submit(_caught, lambda: context.run(call), lambda _, result: _settle(waiter, result))
        return await waiter

    def close(self) -> None:
        """Let idle threads end now, and busy ones after their call. Nothing may be submitted any more."""
        self._closed = True
        self._wanted.set()
        for _ in range(self._alive):
            self._calls.put(None)

    # -- threads

    def _serve(self) -> None:
        me = threading.get_ident()
        while (call := self._next()) is not None:
            self._inside.add(me)
            result = call.run(call.arg)
            self._inside.discard(me)
            self._done += 1
            self._inbox.post(self._returned, call.then, call.arg, result)
            del call, result  # an idle thread holds on to nothing

    def _next(self) -> _Call | None:
        """The next call; None when this thread is to end, which it then has in the books."""
        while True:
            try:
                call = self._calls.get(timeout=self._idle_s)
            except queue.Empty:
                call = None
            if call is not None:
                return call
            with self._lock:
                self._alive -= 1
                if self._closed or self._calls.empty():
                    self._pace_switches()
                    return None
                self._alive += 1  # a call came in while this thread was giving up

    def _returned(self, then: Callable[[Any, Any], None], arg: Any, result: Any) -> None:
        self.outstanding -= 1
        then(arg, result)

    # -- growth

    def _grow_soon(self) -> None:
        self._wanted.set()
        if self._grower is None:
            self._grower = threading.Thread(target=self._grow, name="ropeway-threads", daemon=True)
            self._grower.start()

    def _grow(self) -> None:
        """Start threads beside the loop, which would stand still for 0.1 ms and more at each."""
        while not self._closed:
            self._wanted.wait()
            self._wanted.clear()
            while self._calls.qsize() and self._alive < self.limit and not self._closed:
                self._look()

    def _look(self) -> None:
        """Start as many threads as there are, if these are held up and the pace of this look is too slow."""
        before = self._done
        time.sleep(LOOK_S)
        waiting = self._calls.qsize()
        outside = self._alive - len(self._inside)
        if outside > min(self._alive // 4, STARTS_AT_ONCE) or waiting <= (self._done - before) * PATIENCE_LOOKS:
            return
        for _ in range(min(max(self._alive, AT_ONCE), STARTS_AT_ONCE, waiting, self.limit - self._alive)):
            if not self._start():
                return

    def _start(self) -> bool:
        with self._lock:
            self._alive += 1
            self._peak = max(self._peak, self._alive)
            self._started += 1
            thread = threading.Thread(target=self._serve, name=f"ropeway-{self._started}", daemon=True)
            thread._started = _NotAwaited()  # type: ignore[attr-defined]  # oddity 5
            ours = threading.stack_size(self._stack_bytes)
            try:
                thread.start()
            except (RuntimeError, MemoryError):
                self._alive -= 1
                self._give_up_growing()
                return False
            finally:
                threading.stack_size(ours)
            self._pace_switches()
        return True

    def _pace_switches(self) -> None:
        sys.setswitchinterval(max(self._switch_s, self._alive * SWITCH_S_PER_THREAD))

    def _give_up_growing(self) -> None:
        """The system grants no more threads: live with those there are."""
        if not self._alive:
            raise RuntimeError("the system does not grant a single thread: see ulimit -u and the container's pids.max")
        log.warning("the system grants no more than %d threads, not the %d asked for", self._alive, self.limit)
        self.limit = self._alive


def _caught(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return call(), None
    except BaseException as error:  # handed to whoever awaits it
        return None, error


def _settle(waiter: asyncio.Future[Any], result: tuple[Any, BaseException | None]) -> None:
    value, error = result
    if waiter.done():
        return
    if isinstance(error, StopIteration):  # which no future carries
        error = RuntimeError("a blocking step raised StopIteration")
    if error is None:
        waiter.set_result(value)
    else:
        waiter.set_exception(error)

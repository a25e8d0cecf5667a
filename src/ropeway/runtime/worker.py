"""The worker: leases jobs, runs them, commits what they come to, and leaves without losing any.

run      resources -> catalogue -> session -> lease, run, commit ... until asked to leave
drain    lease no more; what runs has `grace_s` to finish; the rest is released, its attempt given back
end_now  release everything at once: the second signal
stop     drain, and wait until it has left
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random as random_module
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ropeway.blobs import BlobStore
from ropeway.blobs.connect import files_of
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.engines.base import Engine
from ropeway.runtime.crew import Crew
from ropeway.runtime.link import SupervisorLink
from ropeway.runtime.options import Snapshot, WorkerOptions
from ropeway.runtime.patience import Jitter
from ropeway.runtime.registry import App
from ropeway.runtime.resources import ResourceFailed
from ropeway.runtime.watchdog import DEAF_EXIT, WorkerDeaf

__all__ = ["Worker", "run_worker"]

log = logging.getLogger("ropeway.worker")

STOP_S = 2.0  # that code has to stop in when the grace of a drain is over
FLUSH_S = 5.0  # that the last outcomes have to reach the engine in; what does not is rescued
HURRIED_S = 1.0  # the same for both when there is no time
LAST_RESORT_S = 15.0  # beyond its grace, for a worker that is deaf: then its process ends, whatever hangs


class Worker:
    """One worker on an open engine, which it does not own. It runs once.

    Args:
        clock, random, jitter: where time, session ids and the spread of retries come from; tests give their own.
        link: to the supervisor that started this process, if one did.
        blobs: the store of files, or its URL; None: beside the file of a SQLite engine, and with others no files.
    """

    def __init__(
        self,
        app: App,
        engine: Engine,
        options: WorkerOptions | None = None,
        *,
        clock: Clock | None = None,
        random: RandomBytes = system_random,
        jitter: Jitter = random_module.random,
        link: SupervisorLink | None = None,
        blobs: BlobStore | str | None = None,
    ) -> None:
        self._app = app
        self._engine = engine
        self._options = options or WorkerOptions()
        self._clock = clock or SystemClock()
        self._random = random
        self._jitter = jitter
        self._link = link
        self._files = files_of(engine, blobs, clock=self._clock, random=random)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._crew: Crew | None = None
        self._lock = threading.Lock()
        self._draining = False
        self._hurried = False
        self._failure: BaseException | None = None
        self.failed: list[Callable[[BaseException], None]] = []  # told why it leaves, when it does not by itself
        self._asked = asyncio.Event()
        self._ready = asyncio.Event()
        self._left = asyncio.Event()

    async def run(self) -> None:
        """Work until asked to drain.

        Raises:
            ResourceFailed: a resource did not open, or a child did not start; whatever ran was released.
            InvalidRequest: there is nothing that it could serve, or children cannot import the application.
            WorkerDeaf: the engine answers, and this worker heard nothing for too long; what ran could finish.
            EngineBroken: the engine must be opened anew.
            RuntimeError: it has run before.
        """
        with self._lock:
            if self._loop is not None:
                raise RuntimeError("a worker runs once: make another")
            self._loop = asyncio.get_running_loop()
        if self._draining:
            self._asked.set()
        try:
            await self._run()
        finally:
            self._ready.set()
            self._left.set()
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        crew = self._crew = Crew(
            self._app,
            self._engine,
            self._options,
            self._clock,
            self._random,
            self._jitter,
            self._fail,
            self._files,
        )
        self._connect(crew)
        try:
            if await self._start(crew):
                await self._work(crew)
        finally:
            await crew.leave()

    def drain(self) -> None:
        """Lease no more, let what runs finish within the grace, release the rest, leave. From any thread."""
        self._draining = True
        self._in_loop(self._asked.set)

    def end_now(self) -> None:
        """Release everything at once and leave. From any thread."""
        self._draining = self._hurried = True
        self._in_loop(self._hurry)

    async def stop(self) -> None:
        """Drain, and wait until the worker has left. In its loop."""
        self.drain()
        if self._loop is not None:
            await self._left.wait()

    async def started(self) -> None:
        """Until the worker leases jobs, or has left without ever doing so. In its loop."""
        await self._ready.wait()

    def snapshot(self) -> Snapshot:
        """What it does at this moment. From any thread; the figures may be of neighbouring instants."""
        if self._crew is None:
            return Snapshot(self._options.full_name, "starting")
        return self._crew.snapshot()

    # -- phases

    async def _start(self, crew: Crew) -> bool:
        """Open everything; False when it was asked to leave meanwhile."""
        starting, asked = asyncio.ensure_future(crew.start()), asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
        if starting.cancelled():
            return False
        starting.result()
        log.info("worker %s is ready", self._options.full_name)
        self._ready.set()
        return not self._asked.is_set()

    async def _work(self, crew: Crew) -> None:
        leasing = asyncio.ensure_future(crew.poller.run())
        parts = {asyncio.ensure_future(part) for part in crew.parts()}
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            ended, _ = await asyncio.wait({asked, leasing, *parts}, return_when=asyncio.FIRST_COMPLETED)
            for part in ended - {asked}:  # a part never ends by itself: this is a fault of ours
                self._fail(part.exception() or RuntimeError("a part of the worker ended"))
        except asyncio.CancelledError:  # whoever runs us has no time
            self.end_now()
            raise
        finally:
            await self._drain(crew, leasing)
            await _cancelled({asked, leasing, *parts})

    async def _drain(self, crew: Crew, leasing: asyncio.Future[None]) -> None:
        log.info("worker %s drains: %d jobs run", self._options.full_name, len(crew.open_runs))
        crew.state = "draining"
        crew.stop_leasing()
        if isinstance(self._failure, WorkerDeaf):
            leasing.cancel()  # it hangs; what it may have leased is rescued when the session is closed
        leasing.add_done_callback(lambda _: crew.news.set())
        await crew.announce()
        await self._until(crew, lambda: leasing.done() and not crew.open_runs, self._options.grace_s)
        crew.release_all(0.0 if self._hurried else STOP_S)
        await self._until(crew, lambda: not crew.open_runs, HURRIED_S if self._hurried else STOP_S * 2, last=True)
        await self._until(crew, lambda: crew.quiet, HURRIED_S if self._hurried else FLUSH_S, last=True)

    async def _until(self, crew: Crew, done: Callable[[], bool], within_s: float, *, last: bool = False) -> None:
        """Until `done`, or the time is up; or, unless this is the last resort, there is no time any more."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        while not done() and (last or not self._hurried) and (left_s := deadline_s - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(crew.news.wait(), left_s)

    # -- the outside

    def _connect(self, crew: Crew) -> None:
        """Tell the supervisor of our sessions, and leave when it is gone."""
        if self._link is not None:
            crew.sessions.opened.append(self._link.session_opened)
            crew.sessions.closed.append(self._link.session_closed)
            self._link.when_gone(self.drain)

    def _fail(self, error: BaseException) -> None:
        """Leave, for this reason."""
        if self._failure is None:
            log.error("worker %s cannot go on: %s", self._options.full_name, error)
            self._failure = error
            for told in self.failed:
                told(error)
        self.drain() if isinstance(error, ResourceFailed | WorkerDeaf) else self.end_now()

    def _hurry(self) -> None:
        self._asked.set()
        if self._crew is not None:
            self._crew.news.set()

    def _in_loop(self, call: Callable[[], Any]) -> None:
        with self._lock:
            loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has left
                loop.call_soon_threadsafe(call)


async def run_worker(
    app: App,
    engine: Engine,
    options: WorkerOptions | None = None,
    *,
    link: SupervisorLink | None = None,
    blobs: BlobStore | str | None = None,
) -> None:
    """Run a worker until SIGTERM or SIGINT drains it; a second one ends it now, a third is the system's own.

    Under a supervisor, SIGTERM drains however often it comes, and SIGINT ends it now: a service manager may send its
    SIGTERM to the whole group, and the supervisor passes on its own.

    A worker that has gone deaf ends the process: SystemExit with code 70, and without that exit if need be.
    """
    options = options or WorkerOptions()
    worker = Worker(app, engine, options, link=link, blobs=blobs)
    worker.failed.append(lambda error: _make_sure(error, options.grace_s + LAST_RESORT_S))
    with _signals(worker, supervised=link is not None):
        try:
            await worker.run()
        except WorkerDeaf as error:
            raise SystemExit(DEAF_EXIT) from error


def _make_sure(error: BaseException, within_s: float) -> None:
    """End the process of a deaf worker, though what hangs keeps it from leaving."""
    if isinstance(error, WorkerDeaf):
        last_resort = threading.Timer(within_s, os._exit, (DEAF_EXIT,))
        last_resort.daemon = True
        last_resort.start()


@contextlib.contextmanager
def _signals(worker: Worker, *, supervised: bool) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    names = (signal.SIGTERM, signal.SIGINT)
    seen: list[None] = []

    def heard() -> None:
        seen.append(None)
        if len(seen) == 1:
            worker.drain()
            return
        worker.end_now()
        for name in names:
            loop.remove_signal_handler(name)

    def hurried() -> None:
        worker.end_now()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGTERM, worker.drain if supervised else heard)
    loop.add_signal_handler(signal.SIGINT, hurried if supervised else heard)
    try:
        yield
    finally:
        for name in names:
            loop.remove_signal_handler(name)


async def _cancelled(tasks: set[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

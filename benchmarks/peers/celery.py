"""Celery on Redis, results in Redis too, in a database of their own. Its default pool forks; `threads` is another.

Its bulk submit is a group of signatures. The worker takes more than one message ahead where its documents on
optimizing advise so: many short tasks.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from benchmarks.driver import Marks, Spec, drained, emit, finish, main, marks_for, stopped, wait_until
from benchmarks.measure import Usage, cpu_of, descendants, raise_file_limit, usage
from benchmarks.peers.common import arguments, beside, chunks, pings, submitted

__all__: list[str] = []

_CHUNK = 500
_TIMEOUT_S = 30
_LOOK_S = 0.002
_PR_SET_PDEATHSIG = 1
_marks = Marks(0)


class _ForkedMarks(Marks):
    """Marks that the children of a worker set: a number in memory that they share with it."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec["count"], spec.get("workers", 1))
        self._shared = multiprocessing.Value("l", 0)
        self._pids: list[int] = []

    def start(self) -> None:
        super().start()
        threading.Thread(target=self._look, daemon=True).start()

    def now(self) -> Usage:
        self._pids = self._pids or [os.getpid(), *descendants(os.getpid())]
        return Usage(time.monotonic(), cpu_of(self._pids))

    def tick(self) -> None:
        with self._shared.get_lock():
            self._shared.value += 1

    def _look(self) -> None:
        is_warm = False
        while not self.done.wait(_LOOK_S):
            self.ended = self._shared.value
            if not is_warm and self.ended >= self.skip:
                is_warm, self._pids = True, []
                self.first = self.now()
                self.skip = self.ended
            if self.ended >= self.count and self.workers == 1:
                self.done.set()


def noop(n: int) -> int:
    _marks.tick()
    return n


def block(n: int, seconds: float) -> int:
    _marks.enter()
    time.sleep(seconds)
    _marks.leave()
    return n


def clock(n: int) -> int:
    return time.monotonic_ns()


def _app(spec: Spec) -> tuple[Any, Mapping[str, Any]]:
    raise_file_limit()
    app = import_module("celery").Celery("bench", broker=spec["url"], backend=beside(spec["url"]))
    app.conf.worker_prefetch_multiplier = spec.get("prefetch", 4)
    app.conf.broker_connection_retry_on_startup = True
    return app, {function.__name__: app.task(name=function.__name__)(function) for function in (noop, block, clock)}


def _work(spec: Spec, app: Any) -> None:
    """Be a worker, until this process ends."""
    import_module("celery.signals").worker_process_init.connect(_end_with_parent, weak=False)
    worker = app.Worker(pool=spec["pool"], concurrency=spec["slots"], loglevel="ERROR", quiet=True)
    worker.start()


def _end_with_parent(**_: object) -> None:
    """A child of the pool: it must not outlive a worker that is killed (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _when(ended: Callable[[], Mapping[str, Any]]) -> None:
    """Give the result that this waits for, and end, while the worker has the main thread."""
    threading.Thread(target=lambda: finish(ended()), daemon=True).start()


def submit(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs, one call after the other or as groups of 500."""
    app, tasks = _app(spec)
    task = tasks[spec.get("task", "noop")]
    begin = usage()
    if spec["mode"] == "bulk":
        for chunk in chunks(arguments(spec), _CHUNK):
            import_module("celery").group([task.s(*each) for each in chunk], app=app).apply_async()
    else:
        for each in arguments(spec):
            task.delay(*each)
    return submitted(spec, begin)


def drain(spec: Spec) -> Mapping[str, Any]:
    """Run the jobs that wait, `slots` children or threads at once."""
    global _marks
    app, _ = _app(spec)
    _marks = _ForkedMarks(spec) if spec["pool"] == "prefork" else marks_for(spec)
    results = import_module("redis").Redis.from_url(beside(spec["url"]))
    emit("ready")
    _marks.start()

    def ended() -> Mapping[str, Any]:
        _marks.done.wait()
        wait_until(lambda: results.dbsize() >= spec["count"])
        return drained(_marks, stored=results.dbsize())

    _when(ended)
    _work(spec, app)
    raise AssertionError("the worker ended by itself")


def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    app, _ = _app(spec)

    def ended() -> Mapping[str, Any]:
        stopped.wait()
        return {}

    import_module("celery.signals").worker_ready.connect(lambda **_: emit("ready"), weak=False)
    _when(ended)
    _work(spec, app)
    raise AssertionError("the worker ended by itself")


def ping(spec: Spec) -> Mapping[str, Any]:
    """As `pings`."""
    _, tasks = _app(spec)
    return pings(spec, lambda n: tasks["clock"].delay(n).get(timeout=_TIMEOUT_S))


if __name__ == "__main__":
    main({"submit": submit, "drain": drain, "serve": serve, "ping": ping})

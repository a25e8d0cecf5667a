"""Dramatiq on Redis, with its Redis result backend, in a database of its own. Tasks are functions on threads.

It has no bulk submit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from benchmarks.driver import Marks, Spec, drained, emit, main, marks_for, stopped, wait_until
from benchmarks.measure import raise_file_limit, usage
from benchmarks.peers.common import arguments, beside, pings, submitted

__all__: list[str] = []

_TIMEOUT_MS = 30_000
_marks = Marks(0)


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


def _broker(spec: Spec) -> tuple[Any, Any, Mapping[str, Any]]:
    """The broker, its results, and its actors."""
    raise_file_limit()
    dramatiq = import_module("dramatiq")
    broker = import_module("dramatiq.brokers.redis").RedisBroker(url=spec["url"])
    backend = import_module("dramatiq.results.backends").RedisBackend(url=beside(spec["url"]))
    broker.add_middleware(import_module("dramatiq.results").Results(backend=backend))
    actors = (dramatiq.actor(each, broker=broker, store_results=True) for each in (noop, block, clock))
    return broker, backend, {actor.actor_name: actor for actor in actors}


def submit(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs, one call after the other."""
    _, _, actors = _broker(spec)
    actor = actors[spec.get("task", "noop")]
    begin = usage()
    for each in arguments(spec):
        actor.send(*each)
    return submitted(spec, begin)


def _worker(spec: Spec, broker: Any) -> Any:
    return import_module("dramatiq").Worker(broker, worker_threads=spec["slots"])


def drain(spec: Spec) -> Mapping[str, Any]:
    """Run the jobs that wait, `slots` threads at once."""
    global _marks
    broker, backend, _ = _broker(spec)
    _marks = marks_for(spec)
    worker = _worker(spec, broker)
    emit("ready")
    _marks.start()
    worker.start()
    _marks.done.wait()
    wait_until(lambda: backend.client.dbsize() >= spec["count"])
    return drained(_marks, stored=backend.client.dbsize())


def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    broker, _, _ = _broker(spec)
    _worker(spec, broker).start()
    emit("ready")
    stopped.wait()
    return {}


def ping(spec: Spec) -> Mapping[str, Any]:
    """As `pings`."""
    _, backend, actors = _broker(spec)

    def ask(n: int) -> int:
        started: int = actors["clock"].send(n).get_result(backend=backend, block=True, timeout=_TIMEOUT_MS)
        return started

    return pings(spec, ask)


if __name__ == "__main__":
    main({"submit": submit, "drain": drain, "serve": serve, "ping": ping})

"""huey on its default backend, Redis. Its consumer runs threads; results are stored (its default).

`notify_result` is its own option for waiting on results without polling. Its bulk submit is `task.map`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from benchmarks.driver import Marks, Spec, drained, emit, main, marks_for, stopped, wait_until
from benchmarks.measure import raise_file_limit, usage
from benchmarks.peers.common import arguments, pings, submitted

__all__: list[str] = []

_CONNECTIONS = 5_000  # one for each thread; redis-py's own limit of 100 loses the jobs of the others
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


def _huey(spec: Spec) -> tuple[Any, Mapping[str, Any]]:
    raise_file_limit()
    url = f"{spec['url']}?max_connections={_CONNECTIONS}"
    huey = import_module("huey").RedisHuey("bench", url=url, notify_result=spec.get("notify", False))
    return huey, {function.__name__: huey.task()(function) for function in (noop, block, clock)}


def submit(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs, one call after the other or by its own bulk call."""
    _, tasks = _huey(spec)
    task = tasks[spec.get("task", "noop")]
    begin = usage()
    if spec["mode"] == "bulk":
        task.map(arguments(spec))
    else:
        for each in arguments(spec):
            task(*each)
    return submitted(spec, begin)


def drain(spec: Spec) -> Mapping[str, Any]:
    """Run the jobs that wait, `slots` threads at once."""
    global _marks
    huey, _ = _huey(spec)
    _marks = marks_for(spec)
    consumer = huey.create_consumer(workers=spec["slots"], periodic=False)
    emit("ready")
    _marks.start()
    consumer.start()
    _marks.done.wait()
    wait_until(lambda: huey.result_count() >= spec["count"])
    return drained(_marks, stored=huey.result_count())


def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    huey, _ = _huey(spec)
    huey.create_consumer(workers=spec["slots"], periodic=False).start()
    emit("ready")
    stopped.wait()
    return {}


def ping(spec: Spec) -> Mapping[str, Any]:
    """As `pings`."""
    _, tasks = _huey(spec)
    return pings(spec, lambda n: tasks["clock"](n).get(blocking=True))


if __name__ == "__main__":
    main({"submit": submit, "drain": drain, "serve": serve, "ping": ping})

"""RQ on Redis, its only backend, with `SimpleWorker`, its fastest: no fork for each job. One job at a time.

Results are stored (its default). Its bulk submit is `enqueue_many`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from benchmarks import driver
from benchmarks.driver import Marks, Spec, drained, emit, marks_for, wait_until
from benchmarks.measure import usage
from benchmarks.peers.common import arguments, chunks, pings, submitted

__all__ = ["clock", "noop"]

_NAME = "benchmarks.peers.rq"  # RQ calls by name, and this file runs as `__main__`: the name leads to a second copy
_CHUNK = 500
marks = Marks(0)


def noop(n: int) -> int:
    marks.tick()
    return n


def clock(n: int) -> int:
    return time.monotonic_ns()


def _queue(spec: Spec) -> Any:
    connection = import_module("redis").Redis.from_url(spec["url"])
    return import_module("rq").Queue("bench", connection=connection)


def _worker(queue: Any) -> Any:
    return import_module("rq").SimpleWorker([queue], connection=queue.connection)


def submit(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs, one call after the other or by its own bulk call, 500 each."""
    queue = _queue(spec)
    begin = usage()
    if spec["mode"] == "bulk":
        for chunk in chunks(arguments(spec), _CHUNK):
            queue.enqueue_many([queue.prepare_data(f"{_NAME}.noop", each) for each in chunk])
    else:
        for each in arguments(spec):
            queue.enqueue(f"{_NAME}.noop", *each)
    return submitted(spec, begin)


def drain(spec: Spec) -> Mapping[str, Any]:
    """Run the jobs that wait."""
    queue = _queue(spec)
    counted: Any = import_module(_NAME)
    counted.marks = marks_for(spec)
    worker = _worker(queue)
    emit("ready")
    counted.marks.start()
    worker.work(burst=True, logging_level="ERROR")
    finished = queue.finished_job_registry
    wait_until(lambda: finished.get_job_count(cleanup=False) >= spec["count"])
    return drained(counted.marks, stored=finished.get_job_count(cleanup=False))


def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    worker = _worker(_queue(spec))
    threading.Thread(target=lambda: (driver.stopped.wait(), worker.request_stop(2, None)), daemon=True).start()
    emit("ready")
    worker.work(logging_level="ERROR")
    return {}


def ping(spec: Spec) -> Mapping[str, Any]:
    """As `pings`."""
    queue = _queue(spec)
    return pings(spec, lambda n: queue.enqueue(f"{_NAME}.clock", n).latest_result(timeout=30).return_value)


if __name__ == "__main__":
    driver.main({"submit": submit, "drain": drain, "serve": serve, "ping": ping})

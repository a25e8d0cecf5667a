"""arq on Redis, its only backend. Tasks are coroutines; results are stored for an hour (its default).

It has no bulk submit: bulk is many calls at once on one pool. `poll_s` is its polling interval, 0.5 s by default,
of the worker and of those who wait for a result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from benchmarks.driver import Spec, drained, emit, main, stopped
from benchmarks.measure import raise_file_limit, usage
from benchmarks.peers.common import Tasks, arguments, chunks, pings_async, submitted, verbs

__all__: list[str] = []

_AT_ONCE = 100  # calls in flight in a bulk submit: more gave less, each takes a connection


def _settings(spec: Spec) -> Any:
    raise_file_limit()
    return import_module("arq.connections").RedisSettings.from_dsn(spec["url"])


async def _pool(spec: Spec) -> Any:
    return await import_module("arq").create_pool(_settings(spec))


def _worker(spec: Spec, tasks: Tasks) -> Any:
    arq = import_module("arq.worker")
    return arq.Worker(
        [arq.func(function, name=function.__name__) for function in (tasks.noop, tasks.sleep, tasks.clock)],
        redis_settings=_settings(spec),
        max_jobs=spec["slots"],
        poll_delay=spec["poll_s"],
        handle_signals=False,
        log_results=False,
    )


async def submit(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs, each awaited before the next, or many at once."""
    pool, task = await _pool(spec), spec.get("task", "noop")
    begin = usage()
    for chunk in chunks(arguments(spec), _AT_ONCE if spec["mode"] == "bulk" else 1):
        await asyncio.gather(*(pool.enqueue_job(task, *each) for each in chunk))
    return submitted(spec, begin)


async def drain(spec: Spec) -> Mapping[str, Any]:
    """Run the jobs that wait, `slots` of them at once."""
    tasks = Tasks(spec)
    worker = _worker(spec, tasks)
    emit("ready")
    tasks.marks.start()
    running = asyncio.create_task(worker.async_run())
    await asyncio.to_thread(tasks.marks.done.wait)
    while await worker.pool.zcard(worker.queue_name):  # noqa: ASYNC110 - it stores a result and leaves this in one step
        await asyncio.sleep(0.005)
    result = drained(tasks.marks, stored=sum([1 async for _ in worker.pool.scan_iter("arq:result:*", count=10_000)]))
    running.cancel()
    return result


async def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    running = asyncio.create_task(_worker(spec, Tasks()).async_run())
    emit("ready")
    await asyncio.to_thread(stopped.wait)
    running.cancel()
    return {}


async def ping(spec: Spec) -> Mapping[str, Any]:
    """As `pings`."""
    pool = await _pool(spec)

    async def ask(n: int) -> int:
        job = await pool.enqueue_job("clock", n)
        started: int = await job.result(poll_delay=spec["poll_s"])
        return started

    return await pings_async(spec, ask)


if __name__ == "__main__":
    main(verbs(submit, drain, serve, ping))

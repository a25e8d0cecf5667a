"""SAQ on its default backend, Redis. Tasks are coroutines, or functions that it runs on threads.

Results are stored for ten minutes (its default).

It has no bulk submit: bulk is many calls at once, of which its queue lets 20 through at a time (its default).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from benchmarks.driver import Spec, drained, emit, main, stopped
from benchmarks.measure import raise_file_limit, usage
from benchmarks.peers.common import Tasks, arguments, chunks, pings_async, submitted, verbs

__all__: list[str] = []

_AT_ONCE = 100
_MISSED_S = 1.0
_NAMES = ("n", "seconds")  # it takes arguments by name only


def _queue(spec: Spec) -> Any:
    raise_file_limit()
    return import_module("saq").Queue.from_url(spec["url"])


def _worker(spec: Spec, tasks: Tasks) -> Any:
    async def noop(context: object, n: int) -> int:
        return await tasks.noop(context, n)

    def noop_sync(context: object, n: int) -> int:
        return tasks.noop_sync(context, n)

    functions = [("noop", noop), ("noop_sync", noop_sync), ("sleep", tasks.sleep), ("clock", tasks.clock)]
    worker = import_module("saq").Worker(_queue(spec), functions, concurrency=spec["slots"])
    worker.SIGNALS = []
    return worker


async def submit(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs, each awaited before the next, or many at once."""
    queue, task = _queue(spec), spec.get("task", "noop")
    begin = usage()
    for chunk in chunks(arguments(spec), _AT_ONCE if spec["mode"] == "bulk" else 1):
        named = (dict(zip(_NAMES, each, strict=False)) for each in chunk)
        await asyncio.gather(*(queue.enqueue(task, **each) for each in named))
    return submitted(spec, begin)


async def drain(spec: Spec) -> Mapping[str, Any]:
    """Run the jobs that wait, `slots` of them at once."""
    tasks = Tasks(spec)
    worker = _worker(spec, tasks)
    queue = worker.queue
    emit("ready")
    tasks.marks.start()
    running = asyncio.create_task(worker.start())
    await asyncio.to_thread(tasks.marks.done.wait)
    while await queue.count("incomplete"):  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.005)
    keys = sum([1 async for _ in queue.redis.scan_iter("saq:job:*", count=10_000)])
    result = drained(tasks.marks, stored=keys)
    running.cancel()
    return result


async def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    running = asyncio.create_task(_worker(spec, Tasks()).start())
    emit("ready")
    await asyncio.to_thread(stopped.wait)
    running.cancel()
    return {}


async def ping(spec: Spec) -> Mapping[str, Any]:
    """As `pings`."""
    queue = _queue(spec)

    async def ask(n: int) -> int:
        job = await queue.enqueue("clock", n=n)
        while not job.completed:
            with suppress(TimeoutError):  # it subscribes after it has looked: an end in between is not heard
                await job.refresh(until_complete=_MISSED_S)
        started: int = job.result
        return started

    return await pings_async(spec, ask)


if __name__ == "__main__":
    main(verbs(submit, drain, serve, ping))

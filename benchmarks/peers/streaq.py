"""streaQ. Tasks are coroutines, or functions on threads; results are kept for five minutes (its default).

Its bulk submit is `enqueue_many`.
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

_CHUNK = 500
_TIMEOUT_S = 30


def _worker(spec: Spec, tasks: Tasks) -> tuple[Any, Mapping[str, Any]]:
    raise_file_limit()
    slots = spec.get("slots", 16)
    worker = import_module("streaq").Worker(redis_url=spec["url"], concurrency=slots, handle_signals=False)

    async def noop(n: int) -> int:
        return await tasks.noop(None, n)

    def noop_sync(n: int) -> int:
        return tasks.noop_sync(None, n)

    async def sleep(n: int, seconds: float) -> int:
        return await tasks.sleep(None, n, seconds)

    async def clock(n: int) -> int:
        return await tasks.clock(None, n)

    functions = (noop, noop_sync, sleep, clock)
    return worker, {each.__name__: worker.task(name=each.__name__)(each) for each in functions}


async def submit(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs, each awaited before the next, or by its own bulk call, 500 each."""
    worker, tasks = _worker(spec, Tasks())
    task = tasks[spec.get("task", "noop")]
    async with worker:
        begin = usage()
        if spec["mode"] == "bulk":
            for chunk in chunks(arguments(spec), _CHUNK):
                await worker.enqueue_many([task.enqueue(*each) for each in chunk])
        else:
            for each in arguments(spec):
                await task.enqueue(*each)
        return submitted(spec, begin)


async def drain(spec: Spec) -> Mapping[str, Any]:
    """Run the jobs that wait, `slots` of them at once."""
    tasks = Tasks(spec)
    worker, _ = _worker(spec, tasks)
    client, _ = _worker(spec, tasks)
    async with client:
        emit("ready")
        tasks.marks.start()
        running = asyncio.create_task(worker.run_async())
        await asyncio.to_thread(tasks.marks.done.wait)
        while await client.queue_size():  # noqa: ASYNC110 - it stores a result and takes the message away in one step
            await asyncio.sleep(0.005)
        keys = [key async for key in client.redis.scan_iter(match="*:task:results:*", count=10_000)]
        result = drained(tasks.marks, stored=len(keys))
        running.cancel()
        return result


async def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    worker, _ = _worker(spec, Tasks())
    running = asyncio.create_task(worker.run_async())
    emit("ready")
    await asyncio.to_thread(stopped.wait)
    running.cancel()
    return {}


async def ping(spec: Spec) -> Mapping[str, Any]:
    """As `pings`."""
    worker, tasks = _worker(spec, Tasks())

    async def ask(n: int) -> int:
        task = await tasks["clock"].enqueue(n)
        started: int = (await task.result(_TIMEOUT_S)).result
        return started

    async with worker:
        return await pings_async(spec, ask)


if __name__ == "__main__":
    main(verbs(submit, drain, serve, ping))

"""pydocket. Tasks are coroutines; results are kept for 15 minutes (its default). Its bulk submit is `add_many`.

With all its slots taken its worker sleeps for `minimum_check_interval` before it looks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any

from benchmarks.driver import Spec, drained, emit, main, stopped
from benchmarks.measure import raise_file_limit, usage
from benchmarks.peers.common import Tasks, arguments, pings_async, submitted, verbs

__all__: list[str] = []

_CONNECTIONS = 5_000  # redis-py's own limit of 100 ends a worker of 100 slots
_TIMEOUT = timedelta(seconds=30)


@asynccontextmanager
async def _docket(spec: Spec, tasks: Tasks) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
    raise_file_limit()

    async def noop(n: int) -> int:
        return await tasks.noop(None, n)

    async def sleep(n: int, seconds: float) -> int:
        return await tasks.sleep(None, n, seconds)

    async def clock(n: int) -> int:
        return await tasks.clock(None, n)

    functions = (noop, sleep, clock)
    url = f"{spec['url']}?max_connections={_CONNECTIONS}"
    async with import_module("docket").Docket(name="bench", url=url) as docket:
        for function in functions:
            docket.register(function)
        yield docket, {function.__name__: function for function in functions}


@asynccontextmanager
async def _working(spec: Spec, docket: Any) -> AsyncIterator[None]:
    """A worker until the end of the block."""
    interval = timedelta(seconds=spec["check_s"])
    kind = import_module("docket").Worker
    async with kind(docket, concurrency=spec["slots"], minimum_check_interval=interval) as worker:
        running = asyncio.create_task(worker.run_forever())
        yield
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def submit(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs, each awaited before the next, or by its own bulk call."""
    async with _docket(spec, Tasks()) as (docket, functions):
        function = functions[spec.get("task", "noop")]
        begin = usage()
        if spec["mode"] == "bulk":
            await docket.add_many(docket.call(function)(*each) for each in arguments(spec))
        else:
            for each in arguments(spec):
                await docket.add(function)(*each)
        return submitted(spec, begin)


async def drain(spec: Spec) -> Mapping[str, Any]:
    """Run the jobs that wait, `slots` of them at once."""
    tasks = Tasks(spec)
    redis: Any = import_module("redis.asyncio").Redis.from_url(spec["url"])
    async with _docket(spec, tasks) as (docket, _):
        emit("ready")
        tasks.marks.start()
        async with _working(spec, docket):
            await asyncio.to_thread(tasks.marks.done.wait)
            while await redis.xlen(docket.stream_key):  # noqa: ASYNC110 - a message leaves after its result is stored
                await asyncio.sleep(0.005)
            keys = [key async for key in redis.scan_iter(match=f"{docket.results_collection}*", count=10_000)]
            return drained(tasks.marks, stored=len(keys))


async def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    async with _docket(spec, Tasks()) as (docket, _), _working(spec, docket):
        emit("ready")
        await asyncio.to_thread(stopped.wait)
    return {}


async def ping(spec: Spec) -> Mapping[str, Any]:
    """As `pings`."""
    async with _docket(spec, Tasks()) as (docket, functions):

        async def ask(n: int) -> int:
            execution = await docket.add(functions["clock"])(n)
            started: int = await execution.get_result(timeout=_TIMEOUT)
            return started

        return await pings_async(spec, ask)


if __name__ == "__main__":
    main(verbs(submit, drain, serve, ping))

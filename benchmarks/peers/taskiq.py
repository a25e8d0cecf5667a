"""taskiq with taskiq-redis: its stream broker (with acknowledgement), results in a database of their own.

Tasks are coroutines, or functions on threads. It has no bulk submit: bulk is many calls at once. Its group reads what
comes after it was made, so it is made before the first job is submitted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from benchmarks.driver import Spec, drained, emit, main, stopped
from benchmarks.measure import raise_file_limit, usage
from benchmarks.peers.common import Tasks, arguments, beside, chunks, pings_async, submitted, verbs

__all__: list[str] = []

_AT_ONCE = 100
_TIMEOUT_S = 30


def _broker(spec: Spec, tasks: Tasks) -> tuple[Any, Mapping[str, Any]]:
    raise_file_limit()
    redis = import_module("taskiq_redis")
    backend = redis.RedisAsyncResultBackend(beside(spec["url"]))
    broker = redis.RedisStreamBroker(spec["url"]).with_result_backend(backend)

    async def noop(n: int) -> int:
        return await tasks.noop(None, n)

    def noop_sync(n: int) -> int:
        return tasks.noop_sync(None, n)

    async def sleep(n: int, seconds: float) -> int:
        return await tasks.sleep(None, n, seconds)

    async def clock(n: int) -> int:
        return await tasks.clock(None, n)

    functions = (noop, noop_sync, sleep, clock)
    return broker, {each.__name__: broker.register_task(each, task_name=each.__name__) for each in functions}


async def _work(spec: Spec, broker: Any) -> None:
    run: Any = import_module("taskiq.api").run_receiver_task
    await run(broker, max_async_tasks=spec["slots"], sync_workers=spec.get("threads"), run_startup=True)


async def submit(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs, each awaited before the next, or many at once."""
    broker, tasks = _broker(spec, Tasks())
    task = tasks[spec.get("task", "noop")]
    await broker.startup()
    begin = usage()
    for chunk in chunks(arguments(spec), _AT_ONCE if spec["mode"] == "bulk" else 1):
        await asyncio.gather(*(task.kiq(*each) for each in chunk))
    return submitted(spec, begin)


async def drain(spec: Spec) -> Mapping[str, Any]:
    """Run the jobs that wait, `slots` of them at once."""
    tasks = Tasks(spec)
    broker, _ = _broker(spec, tasks)
    results: Any = import_module("redis.asyncio").Redis.from_url(beside(spec["url"]))
    emit("ready")
    tasks.marks.start()
    running = asyncio.create_task(_work(spec, broker))
    await asyncio.to_thread(tasks.marks.done.wait)
    while await results.dbsize() < spec["count"]:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.005)
    result = drained(tasks.marks, stored=await results.dbsize())
    running.cancel()
    return result


async def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    broker, _ = _broker(spec, Tasks())
    await broker.startup()
    running = asyncio.create_task(_work(spec, broker))
    emit("ready")
    await asyncio.to_thread(stopped.wait)
    running.cancel()
    return {}


async def ping(spec: Spec) -> Mapping[str, Any]:
    """As `pings`."""
    broker, tasks = _broker(spec, Tasks())
    await broker.startup()

    async def ask(n: int) -> int:
        task = await tasks["clock"].kiq(n)
        result = await task.wait_result(check_interval=spec["check_s"], timeout=_TIMEOUT_S)
        started: int = result.return_value
        return started

    return await pings_async(spec, ask)


if __name__ == "__main__":
    main(verbs(submit, drain, serve, ping))

"""BullMQ's Python port. Jobs are coroutines; results are kept with them (its default). Its bulk submit is `addBulk`."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from benchmarks.driver import Spec, drained, emit, main, stopped
from benchmarks.measure import raise_file_limit, usage
from benchmarks.peers.common import Tasks, arguments, chunks, pings_async, submitted, verbs

__all__: list[str] = []

_CHUNK = 500
_QUEUE = "bench"


def _queue(spec: Spec) -> Any:
    raise_file_limit()
    return import_module("bullmq").Queue(_QUEUE, {"connection": spec["url"]})


def _worker(spec: Spec, tasks: Tasks) -> Any:
    functions: Mapping[str, Any] = {"noop": tasks.noop, "sleep": tasks.sleep, "clock": tasks.clock}

    async def process(job: Any, _token: str) -> int:
        result: int = await functions[job.name](None, *job.data["args"])
        return result

    return import_module("bullmq").Worker(_QUEUE, process, {"connection": spec["url"], "concurrency": spec["slots"]})


async def submit(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs, each awaited before the next, or by its own bulk call, 500 each."""
    queue, task = _queue(spec), spec.get("task", "noop")
    begin = usage()
    if spec["mode"] == "bulk":
        for chunk in chunks(arguments(spec), _CHUNK):
            await queue.addBulk([{"name": task, "data": {"args": each}} for each in chunk])
    else:
        for each in arguments(spec):
            await queue.add(task, {"args": each})
    return submitted(spec, begin)


async def drain(spec: Spec) -> Mapping[str, Any]:
    """Run the jobs that wait, `slots` of them at once."""
    tasks, queue = Tasks(spec), _queue(spec)
    emit("ready")
    tasks.marks.start()
    worker = _worker(spec, tasks)
    await asyncio.to_thread(tasks.marks.done.wait)
    while await queue.getCompletedCount() < spec["count"]:  # noqa: ASYNC110 - it is not in this process alone
        await asyncio.sleep(0.005)
    result = drained(tasks.marks, stored=await queue.getCompletedCount())
    await worker.close(force=True)
    return result


async def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    worker = _worker(spec, Tasks())
    emit("ready")
    await asyncio.to_thread(stopped.wait)
    await worker.close(force=True)
    return {}


async def ping(spec: Spec) -> Mapping[str, Any]:
    """As `pings`; the queue's events tell of results."""
    queue = _queue(spec)
    events = import_module("bullmq").QueueEvents(_QUEUE, {"connection": spec["url"], "lastEventId": "0"})
    ended: defaultdict[str, asyncio.Future[int]] = defaultdict(asyncio.get_running_loop().create_future)
    events.on("completed", lambda args, *_: ended[args["jobId"]].set_result(args["returnvalue"]))

    async def ask(n: int) -> int:
        job = await queue.add("clock", {"args": [n]})
        return await ended[job.id]

    return await pings_async(spec, ask)


if __name__ == "__main__":
    main(verbs(submit, drain, serve, ping))

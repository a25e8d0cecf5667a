"""The same function on a thread, and in a warm child: backlog, one at a time, and a stream."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

import uvloop

from benchmarks.driver import Spec, emit, main
from benchmarks.measure import cpu_of, descendants
from benchmarks.own.engine import opened
from benchmarks.own.isolated_tasks import app
from ropeway import Client, Worker, WorkerOptions
from ropeway.cli.loops import tune_interpreter
from ropeway.client import call

__all__: list[str] = []


async def _run(spec: Spec) -> Mapping[str, Any]:
    where = spec["run"]
    async with opened(spec["url"]) as engine:
        tune_interpreter()
        began_s = time.monotonic()
        worker = Worker(app, engine, WorkerOptions(queues=(where,), threads=1, upkeep=False))
        working = asyncio.create_task(worker.run())
        await worker.started()
        up_s = time.monotonic() - began_s
        client = Client(engine)
        emit("progress", text="the worker is up")
        await _backlog(worker, client, where, spec["count"] // 20)
        backlog = await _backlog(worker, client, where, spec["count"])
        waits = [await _one(client, where) for _ in range(spec["pings"])]
        begin_s = time.monotonic()
        await (await client.submit(app.tasks[f"words_{where}"], spec["words"])).result()
        stream_s = time.monotonic() - begin_s
        await worker.stop()
        await working
    return {**backlog, "up_s": up_s, "waits_ms": waits, "words_per_s": spec["words"] / stream_s}


async def _backlog(worker: Worker, client: Client, where: str, count: int) -> Mapping[str, Any]:
    """Jobs that wait while their queue is paused, worked off."""
    await client.pause(where)
    async for _ in client.submit_many(call(app.tasks[f"noop_{where}"], n) for n in range(count)):
        pass
    before = _succeeded(worker)
    children = descendants(os.getpid())
    begin_s, cpu_s, children_s = time.monotonic(), time.process_time(), cpu_of(children)
    await client.resume(where)
    while _succeeded(worker) < before + count:  # noqa: ASYNC110 - as in `drain`
        await asyncio.sleep(0.002)
    return {
        "wall_s": time.monotonic() - begin_s,
        "worker_s": time.process_time() - cpu_s,
        "child_s": cpu_of(children) - children_s,
        "jobs": count,
    }


def _succeeded(worker: Worker) -> int:
    """The outcomes that the engine has acknowledged: a look at its own counts would cost more than the jobs do."""
    return worker.snapshot().outcomes.get("succeeded", 0)


async def _one(client: Client, where: str) -> float:
    """ms from submit to result."""
    begin_s = time.monotonic()
    await (await client.submit(app.tasks[f"noop_{where}"], 1)).result()
    return (time.monotonic() - begin_s) * 1000


def run(spec: Spec) -> Mapping[str, Any]:
    """As `_run`."""
    return uvloop.run(_run(spec))


if __name__ == "__main__":
    main({"run": run})

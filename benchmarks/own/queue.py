"""Ropeway's client and worker, with the verbs of every driver: submit, drain, serve, ping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from benchmarks import work
from benchmarks.driver import Spec, drained, emit, main, marks_for, stopped
from benchmarks.measure import raise_file_limit, resident_kib, usage
from benchmarks.own.engine import opened
from benchmarks.own.tasks import app
from benchmarks.peers.common import arguments, pings_async, submitted, verbs
from ropeway import Client, SyncClient, Worker, WorkerOptions, connect
from ropeway.cli.loops import tune_interpreter
from ropeway.client import Call, call
from ropeway.engines.base import Engine

__all__: list[str] = []

_BUSY_POLL_S = 0.005


def _calls(spec: Spec) -> Iterator[Call[Any]]:
    task = app.tasks[spec.get("task", "noop")]
    return (call(task, *each) for each in arguments(spec))


async def _submit(engine: Engine, spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs by the async client: in bulk, or each awaited before the next."""
    client, task = Client(engine), app.tasks[spec.get("task", "noop")]
    before, begin = resident_kib(), usage()
    if spec["mode"] == "bulk":
        async for _ in client.submit_many(_calls(spec)):
            pass
    else:
        for each in arguments(spec):
            await client.submit(task, *each)
    return {**submitted(spec, begin), "grown_kib": resident_kib() - before}


def _submit_sync(spec: Spec) -> Mapping[str, Any]:
    """As `_submit`, one by one, by the client for code without an event loop."""
    task = app.tasks[spec.get("task", "noop")]
    with SyncClient(connect(spec["url"])) as client:
        client.queues()  # it connects at first use
        begin = usage()
        for each in arguments(spec):
            client.submit(task, *each)
        return submitted(spec, begin)


def submit(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` jobs."""

    async def work() -> Mapping[str, Any]:
        async with opened(spec["url"]) as engine:
            return await _submit(engine, spec)

    return _submit_sync(spec) if spec.get("sync") else uvloop.run(work())


async def drain(spec: Spec) -> Mapping[str, Any]:
    """Run the jobs that wait, `slots` of them at once. What lives in this process's memory is submitted first."""
    marks = marks_for(spec)
    work.count_with(marks)
    async with opened(spec["url"]) as engine:
        if engine.info.kind == "memory":
            await _submit(engine, {**spec, "mode": "bulk"})
        emit("ready")
        marks.start()
        async with _working(engine, spec):
            await asyncio.to_thread(marks.done.wait)
            while await _succeeded(engine) < spec["count"]:  # noqa: ASYNC110 - looked at as often as the peers' are
                await asyncio.sleep(_BUSY_POLL_S)
            result = drained(marks)
        return {**result, "stored": await _succeeded(engine)}


async def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    async with opened(spec["url"]) as engine, _working(engine, spec) as worker:
        await worker.started()
        emit("ready")
        await asyncio.to_thread(stopped.wait)
    return {}


async def ping(spec: Spec) -> Mapping[str, Any]:
    """As `pings`; with `one_process` the worker is in this process, on the same engine."""
    clock = app.tasks["clock"]
    async with opened(spec["url"]) as engine:
        client = Client(engine)

        async def ask(n: int) -> int:
            job = await client.submit(clock, n)
            started: int = await job.result()
            return started

        if not spec.get("one_process"):
            return await pings_async(spec, ask)
        async with _working(engine, spec) as worker:
            await worker.started()
            return await pings_async(spec, ask)


@asynccontextmanager
async def _working(engine: Engine, spec: Spec) -> AsyncIterator[Worker]:
    """A worker on this engine until the end of the block."""
    raise_file_limit()
    tune_interpreter()  # as `ropeway worker` does
    slots = spec.get("slots", 1_000)
    worker = Worker(app, engine, WorkerOptions(concurrency=slots, threads=slots))
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        await worker.stop()
        await running


async def _succeeded(engine: Engine) -> int:
    return sum(stats.succeeded for stats in await engine.stats())


if __name__ == "__main__":
    main({"submit": submit, **verbs(drain, serve, ping)})

"""What a flood of one tenant does to the waits of another, and of its own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

import uvloop

from benchmarks.driver import Spec, emit, main
from benchmarks.measure import raise_file_limit
from benchmarks.own.engine import opened
from benchmarks.own.tasks import app
from ropeway import Client, Worker, WorkerOptions
from ropeway.cli.loops import tune_interpreter
from ropeway.client import call

__all__: list[str] = []

_GAP_S = 0.02  # between two jobs of the small tenant: it never has two waiting when it is served in turn
_WARM_UP = 20


async def _waits(spec: Spec) -> Mapping[str, Any]:
    """Seconds from submit to start of the small tenant's jobs: on an idle system, then beside the flood."""
    async with opened(spec["url"]) as engine:
        raise_file_limit()
        tune_interpreter()
        flood, small = Client(engine, tenant="flood"), Client(engine, tenant="small")
        worker = Worker(app, engine, WorkerOptions(concurrency=spec["slots"]))
        running = asyncio.create_task(worker.run())
        await worker.started()
        await _sample(small, _WARM_UP)
        idle = await _sample(small, spec["samples"])
        emit("progress", text=f"flooding with {spec['flood']:,} jobs")
        nap = app.tasks["nap"]
        async for _ in flood.submit_many(call(nap, work_s) for work_s in _lengths(spec["flood"], spec["work_s"])):
            pass
        flooded = await _sample(small, spec["samples"])
        left = sum(stats.queued for stats in await engine.stats())
        worker.end_now()
        await running
        return {"idle": idle, "flooded": flooded, "left": left}


def _lengths(count: int, mean_s: float) -> Iterator[float]:
    """How long the flood's jobs take: any time from a tenth of the mean to 1.9 times it, none likelier than another.

    Jobs of one length that begin together end together, and then the slots come free by the dozen, and between none.
    """
    lengths = random.Random(1)
    return (mean_s * lengths.uniform(0.1, 1.9) for _ in range(count))


async def _sample(client: Client, count: int) -> list[float]:
    """The waits of so many jobs, in the order of their submits."""
    clock = app.tasks["clock"]

    async def one(n: int) -> float:
        submitted_ns = time.monotonic_ns()
        job = await client.submit(clock, n)
        started_ns: int = await job.result()
        return (started_ns - submitted_ns) / 1e9

    asked: list[asyncio.Task[float]] = []
    for n in range(count):
        asked.append(asyncio.create_task(one(n)))
        await asyncio.sleep(_GAP_S)
    return list(await asyncio.gather(*asked))


def waits(spec: Spec) -> Mapping[str, Any]:
    """As `_waits`."""
    return uvloop.run(_waits(spec))


if __name__ == "__main__":
    main({"waits": waits})

"""Batches on engines that keep jobs: each job is its own lease, so what a dead worker held runs elsewhere."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from runtime_support import Stage, eventually

from ropeway import Batch, Client
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine
from ropeway.engines.memory import MemoryEngine
from ropeway.engines.sqlite import SqliteEngine
from ropeway.runtime import App
from ropeway.runtime.attempt import Reason
from ropeway.testing import ManualClock, seeded_random

TTL_MS = 86_400_000

ENGINES = pytest.mark.parametrize("kind", ["memory", "sqlite"])


@asynccontextmanager
async def stage_on(kind: str, app: App, home: Path) -> AsyncIterator[Stage]:
    clock, random = ManualClock(), seeded_random("engine")
    engine: Engine = MemoryEngine(clock, random) if kind == "memory" else SqliteEngine(home / "jobs.db", clock, random)
    await engine.open()
    made = Stage(app, engine, clock)
    try:
        yield made
    finally:
        await made.stop()


@ENGINES
async def test_a_client_submits_items_and_gets_their_results(kind: str, home: Path) -> None:
    """By the task itself, as for any other: one item in, one result out."""
    app = App()

    @app.task(batch=Batch(max_size=8))
    def double(n: list[int]) -> list[int]:
        return [each * 2 for each in n]

    async with stage_on(kind, app, home) as on:
        client = Client(on.engine)
        handles = [await client.submit(double, n=n) for n in range(20)]
        await on.work()
        assert [await handle.result() for handle in handles] == [n * 2 for n in range(20)]
        counted = on.workers[0].snapshot().batches["double"]
        assert counted.jobs == 20
        assert counted.closed["size"] == 2


@ENGINES
async def test_a_worker_that_dies_in_mid_batch_loses_nothing(kind: str, home: Path) -> None:
    """Those that ran and those that waited: each was leased by itself, and each runs again elsewhere."""
    app = App()
    hang, hung = threading.Event(), threading.Event()

    @app.task(batch=Batch(max_size=3))
    def work(n: list[int]) -> list[int]:
        if not hung.is_set():
            hung.set()
            hang.wait()
        return n

    async with stage_on(kind, app, home) as on:
        job_ids = [await on.submit("work", n=n) for n in range(7)]
        await on.work()
        await eventually(lambda: on.workers[0].snapshot().batches["work"].waiting == 3, "a batch runs, and one waits")
        lost = on.crew.sessions.current
        assert lost is not None
        on.clock.advance(TTL_MS + 1)  # nobody renewed it: the worker is as good as dead
        assert await on.engine.rescue(100) == 6
        await on.work()
        jobs = [await on.ended(job_id) for job_id in job_ids]
        assert [job.output for job in jobs] == [str(n) for n in range(7)]
        assert [job.crashes for job in jobs] == [1] * 6 + [0]
        for run in list(on.crew.executor.running):
            on.crew.executor.ask(run, Reason.lost)
        hang.set()
        await eventually(lambda: not on.crew.executor.running, "the dead worker's call ends, for nobody")
        assert {(await on.job(job_id)).state for job_id in job_ids} == {State.succeeded}

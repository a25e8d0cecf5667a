"""Drain: a worker that is told to leave finishes what it can and gives the rest back, at no cost to the job."""

from __future__ import annotations

import asyncio

from fundamentals_support import WAIT_S

from ropeway import App, Client, Context, Worker, WorkerOptions, connect
from ropeway.runtime import given

app = App()
first_is_running = asyncio.Event()


@app.task
async def long_work(*, ctx: Context = given) -> str:
    if not first_is_running.is_set():
        first_is_running.set()
        await asyncio.Event().wait()  # longer than the worker's grace
    return f"attempt {ctx.attempt}"


async def test_an_interrupted_job_runs_elsewhere_as_if_nothing_had_been() -> None:
    """The second worker's run is still the first attempt: a deploy costs no retry."""
    engine = connect("memory:")
    await engine.open()
    async with Client(engine) as client:
        leaving = Worker(app, engine, WorkerOptions(grace_s=0))
        run = asyncio.create_task(leaving.run())
        job = await client.submit(long_work)
        await first_is_running.wait()
        await leaving.stop()
        await run

        staying = Worker(app, engine)
        run = asyncio.create_task(staying.run())
        assert await job.result(timeout=WAIT_S) == "attempt 1"
        await staying.stop()
        await run
    await engine.shut()

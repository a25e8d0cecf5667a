"""Stopping: a client cancels, or a task runs out of its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fundamentals_support import WAIT_S, running

from ropeway import App, Context, JobCancelled, JobFailed, Retry, State
from ropeway.runtime import given

app = App()


@app.task
async def endless() -> AsyncIterator[str]:
    n = 0
    while True:
        yield f"{n} "
        n += 1
        await asyncio.sleep(0.001)


@app.task
def grind(*, ctx: Context = given) -> None:
    while True:
        ctx.progress(0.1)
        ctx.check_cancelled()  # a thread is asked, not killed: it has to look


@app.task(timeout=0.01, retry=Retry(max_attempts=1))
async def too_slow() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("task", ["endless", "grind"])
async def test_cancel_a_running_job(task: str) -> None:
    """The task is stopped where it is; what it had made is kept."""
    async with running(app) as client:
        job = await client.submit(task)
        async for event in job.events():
            if event.type in ("output.delta", "progress"):
                break
        await job.cancel("no longer needed")
        with pytest.raises(JobCancelled, match="no longer needed"):
            await job.result(timeout=WAIT_S)


async def test_cancel_a_waiting_job() -> None:
    """It never starts."""
    async with running(app) as client:
        job = await client.with_options(delay=3600).submit(endless)
        assert (await job.cancel()).state is State.cancelled


async def test_a_job_that_runs_out_of_time_fails() -> None:
    """With the code `timeout`; it is tried again like any failure, if its policy says so."""
    async with running(app) as client:
        with pytest.raises(JobFailed) as caught:
            await (await client.submit(too_slow)).result(timeout=WAIT_S)
        assert (caught.value.error.code, caught.value.error.retryable) == ("timeout", True)

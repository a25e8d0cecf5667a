"""Blocking code: a plain `def` runs on a thread, and an async task sends blocking steps there."""

from __future__ import annotations

import asyncio
import threading

from fundamentals_support import WAIT_S, running

from ropeway import App, Context
from ropeway.runtime import given

app = App()
together = threading.Barrier(3)


@app.task
def blocking(n: int) -> int:
    together.wait(WAIT_S)  # nobody passes before three are here
    return n


@app.task
async def pipeline(text: str, *, ctx: Context = given) -> str:
    def shout() -> str:
        return text.upper()

    def count() -> int:
        return len(text)

    loud, length = await asyncio.gather(ctx.to_thread(shout), ctx.to_thread(count))
    return f"{loud} {length}"


async def test_blocking_jobs_run_side_by_side() -> None:
    """Each has a thread of its own; the event loop stays free."""
    async with running(app) as client:
        jobs = [await client.submit(blocking, n) for n in range(3)]
        assert [await job.result(timeout=WAIT_S) for job in jobs] == [0, 1, 2]


async def test_two_blocking_steps_of_one_job_side_by_side() -> None:
    """An async task awaits them together, and joins what they give."""
    async with running(app) as client:
        job = await client.submit(pipeline, "abc")
        assert await job.result(timeout=WAIT_S) == "ABC 3"

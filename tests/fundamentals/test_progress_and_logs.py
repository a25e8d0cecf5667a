"""Progress: a task tells how far it is, what it does, and what it has used."""

from __future__ import annotations

from fundamentals_support import WAIT_S, running

from ropeway import App, Context
from ropeway.runtime import given

app = App()


@app.task
def analyze(image: str, *, ctx: Context = given) -> str:
    ctx.progress(0.5, step="inference")
    ctx.log(f"looking at {image}")
    ctx.usage(input_tokens=100)
    ctx.usage(input_tokens=20, output_tokens=5)
    ctx.progress(1.0, step="done")
    return "wheat"


async def test_a_job_shows_its_progress() -> None:
    """The last report is always kept; what was used adds up."""
    async with running(app) as client:
        job = await client.submit(analyze, "field.tif")
        assert await job.result(timeout=WAIT_S) == "wheat"
        seen = await job.get()
        assert seen.progress == {"fraction": 1.0, "step": "done"}
        assert seen.usage == {"input_tokens": 120, "output_tokens": 5}


async def test_followers_see_it_as_it_happens() -> None:
    """Progress, logs and usage are events of the job, in order."""
    async with running(app) as client:
        job = await client.submit(analyze, "field.tif")
        lines = [event.data["message"] async for event in job.events() if event.type == "log"]
        assert lines == ["looking at field.tif"]

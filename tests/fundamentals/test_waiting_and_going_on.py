"""Going on: what one attempt has done, the next need not do again; and waiting costs nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fundamentals_support import WAIT_S, running

from ropeway import App, Context, Retry
from ropeway.runtime import given

app = App()
asked: list[str] = []


def ask(question: str) -> str:
    asked.append(question)
    return f"the answer to {question}"


@app.task(retry=Retry(max_attempts=2, base_s=0))
async def careful(*, ctx: Context = given) -> str:
    answer = await ctx.step("ask", ask, "life")
    if ctx.attempt == 1:
        raise ConnectionError
    return answer


@app.task(resumable=True, retry=Retry(max_attempts=5, base_s=0))
async def stubborn(text: str, *, ctx: Context = given) -> AsyncIterator[str]:
    for letter in text[len(ctx.partial or "") :]:
        yield letter
        if ctx.attempt < 3:
            raise ConnectionError


@app.task(retry=Retry(max_attempts=1))
async def patient(*, ctx: Context = given) -> str:
    ticket = await ctx.step("order", ask, "a ticket")
    asked.append("ready?")
    if asked.count("ready?") < 3:
        ctx.snooze(0.01, reason="not ready")
    return ticket


async def test_a_step_is_done_once() -> None:
    """A retry takes its result from the job's log."""
    async with running(app) as client:
        assert await (await client.submit(careful)).result(timeout=WAIT_S) == "the answer to life"
    assert asked.count("life") == 1


async def test_a_stream_goes_on_after_a_failure() -> None:
    """Readers see one stream, and the output is the whole."""
    async with running(app) as client:
        job = await client.submit(stubborn, "abcdef")
        streamed = [event.data["delta"] async for event in job.events() if event.type == "output.delta"]
        assert "".join(streamed) == await job.result(timeout=WAIT_S) == "abcdef"
        assert (await job.get()).attempt == 3


async def test_a_job_waits_without_holding_a_place() -> None:
    """It looks now and then whether somebody else is done; that spends no attempt."""
    async with running(app) as client:
        job = await client.submit(patient)
        assert await job.result(timeout=WAIT_S) == "the answer to a ticket"
        assert (await job.get()).attempt == 1
    assert asked.count("a ticket") == 1

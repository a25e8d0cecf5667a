"""Streaming: a generator's items reach those who follow the job while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from fundamentals_support import WAIT_S, running

from ropeway import App, Context
from ropeway.runtime import given

app = App()


@app.task
async def count(to: int) -> AsyncIterator[str]:
    for n in range(1, to + 1):
        yield f"{n} "


@app.task
def squares(to: int) -> Iterator[int]:
    for n in range(1, to + 1):
        yield n * n


@app.task
async def think(question: str, *, ctx: Context = given) -> dict[str, str]:
    ctx.emit("let me see... ")
    return {"answer": question[::-1]}


async def test_follow_the_tokens_of_a_job() -> None:
    """Each `output.delta` holds the text to append; strings that come quickly arrive together."""
    async with running(app) as client:
        job = await client.submit(count, 5)
        text = "".join([event.data["delta"] async for event in job.events() if event.type == "output.delta"])
        assert text == "1 2 3 4 5 "


async def test_the_output_is_all_that_was_yielded() -> None:
    """Strings as one string, anything else as a list."""
    async with running(app) as client:
        assert await (await client.submit(count, 3)).result(timeout=WAIT_S) == "1 2 3 "
        assert await (await client.submit(squares, 3)).result(timeout=WAIT_S) == [1, 4, 9]


async def test_resume_where_you_stopped() -> None:
    """Every event has an id; whoever comes back with the last one misses nothing and sees nothing twice."""
    async with running(app) as client:
        job = await client.submit(squares, 4)
        await job.result(timeout=WAIT_S)
        everything = [event async for event in job.events()]
        middle = everything[3]
        rest = [event async for event in client.events(job.id, after=middle.id)]
        assert [event.id for event in rest] == [event.id for event in everything[4:]]


async def test_a_plain_function_can_emit_too() -> None:
    """`ctx.emit` streams; what is returned is the output."""
    async with running(app) as client:
        job = await client.submit(think, "abc")
        assert await job.result(timeout=WAIT_S) == {"answer": "cba"}
        deltas = [event.data["delta"] async for event in job.events() if event.type == "output.delta"]
        assert deltas == ["let me see... "]

"""Composition on every engine, by two workers: what one submits the other runs, and either may do the waking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from runtime_support import Stage

from harnesses import HARNESSES
from ropeway.client import Client
from ropeway.domain.lifecycle import State
from ropeway.runtime import App, Context, given
from ropeway.testing import ManualClock, seeded_random
from ropeway.testing.harness import Harness

ENGINES = pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.name)


def app_of_tiles() -> App:
    app = App()

    @app.task
    async def tile(n: int) -> int:
        if n < 0:
            await asyncio.Event().wait()
        return n * n

    @app.task(concurrency=1)
    async def mosaic(tiles: list[int], *, ctx: Context = given) -> int:
        parts = [await ctx.submit(tile, n) for n in tiles]
        approved = await ctx.wait_input()
        return sum(await ctx.gather(*parts)) if approved else 0

    @app.task
    async def caption(size: int, words: list[str]) -> str:
        return " ".join([*words, str(size)])

    return app


@asynccontextmanager
async def stage_on(harness: Harness, app: App) -> AsyncIterator[Stage]:
    clock = ManualClock()
    engine = await harness.start(clock, seeded_random("engine"))
    made = Stage(app, engine, clock)
    try:
        yield made
    finally:
        await made.stop()
        await harness.stop(engine)


@ENGINES
async def test_a_flow_runs_to_its_end(harness: Harness) -> None:
    """Children, an approval, and a chain behind it: each job runs to one result, and nothing is left behind."""
    async with stage_on(harness, app_of_tiles()) as on, Client(on.engine) as client:
        await on.work(upkeep=True)
        await on.work(upkeep=True)
        mosaic, caption = on.app.tasks["mosaic"], on.app.tasks["caption"]
        flows = []
        for n in range(5):
            picture = await client.submit(mosaic, list(range(n, n + 3)))
            flows.append((picture, await client.submit(caption, picture.output, ["size", "is"])))
        for picture, _ in flows:
            await on.when(picture.id, lambda job: job.state is State.scheduled, "it waits for an approval")
            await picture.send(True)
        sizes = [sum(m * m for m in range(n, n + 3)) for n in range(5)]
        assert [await last.result(30) for _, last in flows] == [f"size is {size}" for size in sizes]
        assert len([job async for job in client.find(task="tile")]) == 15


@ENGINES
async def test_a_cancelled_flow_ends_as_a_whole(harness: Harness) -> None:
    """The children that run are asked to stop, and what was to come after fails."""
    async with stage_on(harness, app_of_tiles()) as on, Client(on.engine) as client:
        await on.work(upkeep=True)
        picture = await client.submit(on.app.tasks["mosaic"], [-1, -2, -3])
        last = await client.submit(on.app.tasks["caption"], picture.output, [])
        await on.when(picture.id, lambda job: job.state is State.scheduled, "it waits for an approval")
        await picture.cancel()
        assert (await on.ended(last.id)).state is State.failed
        tiles = [job.id async for job in client.find(task="tile")]
        assert [(await on.ended(tile)).state for tile in tiles] == [State.cancelled] * 3

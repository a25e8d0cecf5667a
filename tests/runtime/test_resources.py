"""Resources: opened once before the first job, given by name, closed in reverse after the last."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from runtime_support import stage

from ropeway.domain.lifecycle import State
from ropeway.runtime import App, ResourceFailed, Worker, given
from ropeway.testing import ManualClock


async def test_each_kind_is_opened_once_and_closed_in_reverse() -> None:
    """Generators, async or not, and functions; each after what it takes. Blocking ones run off the loop."""
    app = App()
    told: list[str] = []

    @app.resource
    async def settings() -> dict[str, str]:
        told.append("open settings")
        return {"url": "u"}

    @app.resource
    async def pool(settings: dict[str, str]) -> AsyncIterator[str]:
        told.append("open pool")
        yield settings["url"] + "-pool"
        told.append("close pool")

    @app.resource
    def model(pool: str) -> Iterator[str]:
        told.append("open model")
        assert threading.current_thread() is not threading.main_thread()
        yield pool + "-model"
        told.append("close model")

    @app.resource
    def size() -> int:
        return 7

    @app.task
    async def use(n: int, *, model: str = given, size: int = given) -> str:
        return f"{model} {n} {size}"

    @app.task
    def use_in_thread(model: str) -> str:
        return model

    async with stage(app) as on:
        worker = await on.work()
        assert told == ["open settings", "open pool", "open model"]
        assert [await on.output("use", n=n) for n in range(3)] == [f"u-pool-model {n} 7" for n in range(3)]
        assert await on.output("use_in_thread") == "u-pool-model"
        await worker.stop()
        assert told == ["open settings", "open pool", "open model", "close model", "close pool"]


async def test_resources_are_closed_after_the_last_job() -> None:
    """A drain lets jobs finish with what they were given."""
    app = App()
    told: list[str] = []
    began, go = asyncio.Event(), asyncio.Event()

    @app.resource
    async def db() -> AsyncIterator[list[str]]:
        yield told
        told.append("closed")

    @app.task
    async def use(*, db: list[str] = given) -> None:
        began.set()
        await go.wait()
        db.append("used")

    async with stage(app) as on:
        worker = await on.work()
        await on.submit("use")
        await began.wait()
        worker.drain()
        go.set()
        await worker.stop()
        assert told == ["used", "closed"]


async def test_a_resource_that_does_not_open_stops_the_worker() -> None:
    """Before it leases anything, with the resource's name and the reason; those opened before are closed."""
    app = App()
    told: list[str] = []

    @app.resource
    async def good() -> AsyncIterator[int]:
        yield 1
        told.append("good closed")

    @app.resource
    async def bad(good: int) -> AsyncIterator[int]:
        raise ConnectionError("nobody there")
        yield 1

    @app.task
    async def use(bad: int) -> int:
        return bad

    async with stage(app) as on:
        job_id = await on.submit("use")
        with pytest.raises(ResourceFailed, match="resource 'bad' failed to open: ConnectionError: nobody there"):
            await Worker(app, on.engine, clock=ManualClock()).run()
        assert told == ["good closed"]
        assert (await on.job(job_id)).state is State.queued
        assert await on.engine.workers() == []


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "blocking"])
async def test_a_generator_that_yields_nothing_does_not_open(blocking: bool) -> None:
    """It has to yield once."""
    app = App()

    async def empty() -> AsyncIterator[int]:
        return
        yield 1

    def empty_in_thread() -> Iterator[int]:
        return
        yield 1

    empty_in_thread.__name__ = "empty"
    app.resource(empty_in_thread if blocking else empty)

    @app.task
    async def use(empty: int) -> int:
        return empty

    async with stage(app) as on:
        with pytest.raises(ResourceFailed, match="it yielded nothing"):
            await Worker(app, on.engine).run()


async def test_one_that_fails_to_close_does_not_keep_the_others_open(caplog: pytest.LogCaptureFixture) -> None:
    """It is told in the log."""
    app = App()
    told: list[str] = []

    @app.resource
    async def first() -> AsyncIterator[int]:
        yield 1
        told.append("first closed")

    @app.resource
    async def greedy(first: int) -> AsyncIterator[int]:
        yield 1
        yield 2

    @app.resource
    def broken(greedy: int) -> Iterator[int]:
        yield 1
        raise OSError("stuck")

    @app.task
    async def use(broken: int) -> int:
        return broken

    async with stage(app) as on:
        worker = await on.work()
        assert await on.output("use") == 1
        await worker.stop()
        assert told == ["first closed"]
        assert "resource 'broken' failed to close" in caplog.text
        assert "resource 'greedy' yielded twice" in caplog.text


async def test_a_worker_can_be_told_to_leave_while_it_opens() -> None:
    """A slow model does not keep a signal from being heard."""
    app = App()
    opening = asyncio.Event()

    @app.resource
    async def slow() -> AsyncIterator[int]:
        opening.set()
        await asyncio.Event().wait()
        yield 1

    @app.task
    async def use(slow: int) -> int:
        return slow

    async with stage(app) as on:
        worker = Worker(app, on.engine)
        run = asyncio.create_task(worker.run())
        await opening.wait()
        await worker.stop()
        await run
        assert worker.snapshot().state == "ended"

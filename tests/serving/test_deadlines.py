"""Deadlines that share a timer: they end what waits, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from ropeway.serving.deadlines import Deadlines


async def test_what_takes_too_long_ends() -> None:
    """With TimeoutError, and the task goes on."""
    deadlines = Deadlines()
    with pytest.raises(TimeoutError), deadlines.limit(0.01):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_what_is_in_time_is_left_alone() -> None:
    """However many there are, and when they are done nothing is left to look after."""
    deadlines = Deadlines()

    async def quick() -> int:
        with deadlines.limit(0.1):
            await asyncio.sleep(0)
            return 1

    assert await asyncio.gather(*[quick() for _ in range(100)]) == [1] * 100
    assert not deadlines._running


async def test_a_long_one_does_not_make_a_short_one_late() -> None:
    """The timer turns as fast as the shortest needs."""
    deadlines = Deadlines()

    async def waits(seconds: float) -> str:
        try:
            with deadlines.limit(seconds):
                await asyncio.Event().wait()
        except TimeoutError:
            return "ended"
        return "went on"

    long = asyncio.create_task(waits(3600))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert await waits(0.01) == "ended"
    assert not long.done()
    long.cancel()


async def test_a_cancel_from_elsewhere_is_no_timeout() -> None:
    """It passes through."""
    deadlines = Deadlines()
    inside = asyncio.Event()

    async def waits() -> None:
        with deadlines.limit(3600):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not deadlines._running

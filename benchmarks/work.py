"""What the measured jobs do, as plain functions: the same for every way of running them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from benchmarks.driver import Marks

__all__ = ["block", "clock", "count_with", "noop", "noop_sync", "request", "sleep", "tokens"]

_marks = Marks(0)

STEP_1_S, STEP_2_S, JOIN_S = 2.5, 1.0, 1.0


def count_with(marks: Marks) -> None:
    """Count the jobs of this process with these marks from now on."""
    global _marks
    _marks = marks


async def noop(n: int) -> int:
    _marks.tick()
    return n


def noop_sync(n: int) -> int:
    _marks.tick()
    return n


async def sleep(n: int, seconds: float) -> int:
    _marks.enter()
    await asyncio.sleep(seconds)
    _marks.leave()
    return n


def block(n: int, seconds: float) -> int:
    _marks.enter()
    time.sleep(seconds)
    _marks.leave()
    return n


async def request(n: int) -> int:
    """A request of the pipeline example: two steps side by side, then their join; 3.5 s in all."""
    _marks.enter()
    await asyncio.gather(asyncio.sleep(STEP_1_S), asyncio.sleep(STEP_2_S))
    await asyncio.sleep(JOIN_S)
    _marks.leave()
    return n


async def clock(n: int) -> int:
    """When this job started, on the clock that all processes of a machine share."""
    return time.monotonic_ns()


async def tokens(count: int, per_s: float = 0.0) -> AsyncIterator[str]:
    """`count` tokens, each naming the moment it was made; `per_s` a second, or as fast as they are taken."""
    begin = time.monotonic()
    for n in range(count):
        await asyncio.sleep(begin + n / per_s - time.monotonic() if per_s else 0)
        yield f"t{time.monotonic_ns()};"

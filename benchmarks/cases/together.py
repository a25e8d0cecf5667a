"""Several worker processes that drain one store together, watched from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.launch import Child
from benchmarks.run import Run

__all__ = ["Together", "drain_together"]

_SKIP = 0.05  # as in `driver`


@dataclass(frozen=True)
class Together:
    """What a drain came to after its warm-up: jobs, seconds, and the workers' CPU seconds.

    Attributes:
        ran: how often a job ran, the warm-up included: more than there are jobs when some ran twice.
    """

    ran: int
    jobs: int
    wall_s: float
    cpu_s: float


class _Watch:
    """How far the workers are together, and where they were at the end of the warm-up."""

    def __init__(self, workers: list[Child], count: int) -> None:
        self._workers = workers
        self._count = count
        self._ended = [0] * len(workers)
        self._cpu_s = [0.0] * len(workers)
        self.first: tuple[int, float, float] = (0, time.monotonic(), 0.0)
        self._is_warm = False

    async def follow(self, place: int) -> Mapping[str, Any]:
        """Hear one worker out, to its result."""
        while True:
            event, facts = await self._workers[place].heard()
            if event == "result":
                return facts
            if event == "ended":
                self._told(place, facts["jobs"], facts["cpu_s"])

    def _told(self, place: int, jobs: int, cpu_s: float) -> None:
        self._ended[place], self._cpu_s[place] = jobs, cpu_s
        ended = sum(self._ended)
        if not self._is_warm and self._count * _SKIP <= ended < self._count:
            self._is_warm = True
            self.first = (ended, time.monotonic(), sum(self._cpu_s))
        if ended >= self._count:
            for worker in self._workers:
                worker.stop()


async def drain_together(run: Run, count: int, *, workers: int) -> Together:
    """Have several workers run the jobs that wait, beginning together."""
    async with AsyncExitStack() as stack:
        begun = [
            await stack.enter_async_context(run.start("drain", count=count, workers=workers)) for _ in range(workers)
        ]
        for worker in begun:
            await worker.ready()
        watch = _Watch(begun, count)
        for worker in begun:
            worker.tell("go")
        results = await asyncio.gather(*(watch.follow(place) for place in range(workers)))
    assert all(result["stored"] == count for result in results), f"of {count}: {[r['stored'] for r in results]} stored"
    ended, at_s, cpu_s = watch.first
    end_s, end_cpu_s = max(each["end_at_s"] for each in results), sum(each["end_cpu_s"] for each in results)
    return Together(sum(each["ended"] for each in results), count - ended, end_s - at_s, end_cpu_s - cpu_s)

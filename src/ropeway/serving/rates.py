"""How fast queues drain, measured while somebody asks: what honest waiting times are made of."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import NamedTuple

from ropeway.domain.clock import Clock
from ropeway.domain.errors import RopewayError
from ropeway.engines.base import Reading

__all__ = ["Rates"]

SAMPLE_S = 1.0  # between two looks
WINDOW_S = 30.0  # a rate is an average over at most this long
INTEREST_S = 15.0  # sampling ends this long after the last question
COST_SHARE = 50  # looks are at least this many times their own duration apart: 2 % of a core at the most

LEAST_WAIT_S, MOST_WAIT_S = 1.0, 60.0
UNKNOWN_WAIT_S = 5.0  # told to a client when nothing is measured yet


class _Sample(NamedTuple):
    at_s: float
    ended: dict[str, int]


class Rates:
    """Jobs that end in a second, by queue, over the last half minute of this gateway's own looks."""

    def __init__(self, engine: Reading, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._samples: deque[_Sample] = deque()
        self._asked_at_s = float("-inf")
        self._sampler: asyncio.Task[None] | None = None

    def known(self, queue: str) -> float | None:
        """Jobs per second, as last measured; None while nothing is. Asking keeps the measuring alive."""
        self._asked_at_s = self._clock.monotonic_s()
        if self._sampler is None or self._sampler.done():
            self._sampler = asyncio.get_running_loop().create_task(self._keep_sampling())
        return self._rate(queue)

    def wait_s(self, queue: str, ahead: int) -> float | None:
        """Seconds until `ahead` jobs have gone at the measured rate; None when that is not known."""
        rate = self.known(queue)
        return round(ahead / rate, 3) if rate else None

    def retry_after_s(self, queue: str, backlog: int) -> float:
        """When to try again a submit that met a full queue: its backlog at the measured rate, 1 to 60 s."""
        rate = self.known(queue)
        if rate is None:
            return UNKNOWN_WAIT_S
        return min(max(backlog / rate, LEAST_WAIT_S), MOST_WAIT_S) if rate > 0 else MOST_WAIT_S

    async def sample(self) -> None:
        """Take one look. Counts that went back (jobs were pruned) begin a new window."""
        counts = {stats.queue: stats.succeeded + stats.failed + stats.cancelled for stats in await self._engine.stats()}
        now_s = self._clock.monotonic_s()
        if self._samples and any(counts.get(queue, 0) < ended for queue, ended in self._samples[-1].ended.items()):
            self._samples.clear()
        self._samples.append(_Sample(now_s, counts))
        while self._samples[0].at_s < now_s - WINDOW_S:
            self._samples.popleft()

    def close(self) -> None:
        """Look no more."""
        if self._sampler is not None:
            self._sampler.cancel()

    def _rate(self, queue: str) -> float | None:
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        span_s = last.at_s - first.at_s
        if span_s <= 0 or self._clock.monotonic_s() - last.at_s > INTEREST_S:
            return None
        return (last.ended.get(queue, 0) - first.ended.get(queue, 0)) / span_s

    async def _keep_sampling(self) -> None:
        while self._clock.monotonic_s() - self._asked_at_s < INTEREST_S:
            began_s = self._clock.monotonic_s()
            with contextlib.suppress(RopewayError):  # an engine that does not answer is told to clients elsewhere
                await self.sample()
            await asyncio.sleep(max(SAMPLE_S, COST_SHARE * (self._clock.monotonic_s() - began_s)))
        self._samples.clear()

"""Upkeep: what one worker at a time does for all. Promote what is due, rescue what was lost, prune what is old.

It sleeps exactly until the next of these is needed, and is woken when something new waits for a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable
from ropeway.engines.base import Engine

__all__ = ["DUTY", "Upkeep"]

log = logging.getLogger("ropeway.worker")

DUTY = "upkeep"
ELECTION_TTL_MS = 3_000  # a leader that died is replaced within so long; a session lives 10 s
ELECTION_S = 1.0  # between two votes: two may fail
RESCUE_S = 1.0
PRUNE_S = 30.0
BATCH = 1_000  # jobs moved in one step, so that no step holds the engine for long
MIN_SLEEP_S = 0.005  # a flood of submits with delays hints at each: promote for many at once


class Upkeep:
    """One worker's bid for the duty, and the duty."""

    def __init__(self, engine: Engine, holder: str, clock: Clock, gained: Callable[[], None] = lambda: None) -> None:
        """`gained` is called when this worker becomes the leader."""
        self.leads = False
        self._gained = gained
        self._engine = engine
        self._holder = holder
        self._clock = clock
        self._elect_at_s = self._rescue_at_s = self._prune_at_s = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        with self._engine.listen("upkeep") as hints:
            while True:
                try:
                    wait_s = await self.tick()
                except EngineUnavailable as error:
                    log.warning("upkeep: %s", error)
                    wait_s = RESCUE_S
                await hints.wait(wait_s)
                await asyncio.sleep(MIN_SLEEP_S)

    async def tick(self) -> float:
        """Do what is due now. Returns the seconds until something is again."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._elect_at_s:
            led, self.leads = self.leads, await self._engine.elect(DUTY, self._holder, ELECTION_TTL_MS)
            self._elect_at_s = now_s + ELECTION_S
            if self.leads and not led:
                self._gained()
        if not self.leads:
            return self._elect_at_s - now_s
        if now_s >= self._rescue_at_s:
            self._rescue_at_s = now_s + RESCUE_S
            rescued = await self._engine.rescue(BATCH)
            if rescued:
                log.warning("rescued %d jobs of workers that fell silent", rescued)
        if now_s >= self._prune_at_s:
            self._prune_at_s = now_s + PRUNE_S
            if await self._engine.prune(BATCH) >= BATCH:
                self._prune_at_s = now_s  # there is more
        return min(await self._promote(), self._elect_at_s - now_s, self._rescue_at_s - now_s)

    async def _promote(self) -> float:
        """Queue what is due; the seconds until the next job is."""
        promotion = await self._engine.promote(BATCH)
        if promotion.moved >= BATCH:
            return 0.0
        if promotion.next_at_ms is None:
            return RESCUE_S
        return max(promotion.next_at_ms - self._clock.now_ms(), 0) / 1000

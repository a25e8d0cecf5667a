"""The sweep of files, by the one worker that does the upkeep; beside it, since a store may be slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ropeway.blobs.sweep import Sweep
from ropeway.domain.errors import RopewayError

__all__ = ["Sweeping"]

log = logging.getLogger("ropeway.worker")

ROUND_S = 10.0  # between two rounds: how late a file goes that nobody may see any more
PAGE_S = 0.2  # between two pages of a round, so that a million files do not hold the engine


class Sweeping:
    """Sweeps while `leads` says so."""

    def __init__(self, sweep: Sweep, leads: Callable[[], bool]) -> None:
        self._sweep = sweep
        self._leads = leads

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            wait_s = await self.tick()
            await asyncio.sleep(wait_s)

    async def tick(self) -> float:
        """One page, if it is ours to sweep. Returns the seconds until the next."""
        if not self._leads():
            return ROUND_S
        try:
            _, over = await self._sweep.step()
        except RopewayError as error:
            log.warning("sweep of files: %s", error)
            return ROUND_S
        return ROUND_S if over else PAGE_S

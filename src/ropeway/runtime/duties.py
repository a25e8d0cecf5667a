"""What one worker at a time does for all: upkeep, schedules, the waking of those who wait, the sweep of files."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from ropeway.blobs import Files
from ropeway.blobs.sweep import Sweep
from ropeway.domain.clock import Clock
from ropeway.engines.base import Engine
from ropeway.runtime.composing.waking import Waking
from ropeway.runtime.scheduling import Scheduling
from ropeway.runtime.sweeping import Sweeping
from ropeway.runtime.upkeep import Upkeep

__all__ = ["Duties"]


class Duties:
    """One worker's share of them. `leads` tells whether it is the one."""

    def __init__(self, engine: Engine, files: Files | None, holder: str, clock: Clock) -> None:
        self.upkeep = Upkeep(engine, holder, clock, self._gained)
        self.scheduling = Scheduling(engine, files, lambda: self.upkeep.leads, clock)
        self.waking = Waking(engine, lambda: self.upkeep.leads, clock)
        self._sweeping = None if files is None else Sweeping(Sweep(files, engine), lambda: self.upkeep.leads)

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """Each runs until cancelled."""
        parts = [self.upkeep.run(), self.scheduling.run(), self.waking.run()]
        if self._sweeping is not None:
            parts.append(self._sweeping.run())
        return parts

    def _gained(self) -> None:
        """This worker leads now."""
        self.scheduling.look()
        self.waking.look()

"""The memory engine: its roles together, and its life."""

from __future__ import annotations

import asyncio

from ropeway.domain.clock import Clock
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.domain.lease import Renewal
from ropeway.engines.base import EngineInfo, Renewer
from ropeway.engines.memory.execution import ExecutionRole
from ropeway.engines.memory.reading import ReadingRole
from ropeway.engines.memory.records import RecordsRole
from ropeway.engines.memory.rescue import RescueRole
from ropeway.engines.memory.submission import SubmissionRole
from ropeway.engines.memory.upkeep import UpkeepRole

__all__ = ["MemoryEngine"]


class MemoryEngine(SubmissionRole, ExecutionRole, ReadingRole, RescueRole, UpkeepRole, RecordsRole):
    """Jobs that live as long as this process. Durability class `memory`."""

    def __init__(self, clock: Clock | None = None, random: RandomBytes = system_random) -> None:
        super().__init__(clock, random)
        self.info = EngineInfo("memory", "memory:", "memory", "1")

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_open = True

    async def shut(self) -> None:
        self._is_open = False

    def renewer(self) -> Renewer:
        return _MemoryRenewer(self, self._loop)


class _MemoryRenewer:
    """Renews in the caller's own thread: there is no connection to have. A rescue is the loop's to do."""

    def __init__(self, engine: MemoryEngine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop

    def renew(self, session: str, ttl_ms: int) -> Renewal:
        return self._engine.renew_now(session, ttl_ms)

    def close_session(self, session: str) -> None:
        asyncio.run_coroutine_threadsafe(self._engine.close(session), self._loop).result()

    def close(self) -> None:
        return None

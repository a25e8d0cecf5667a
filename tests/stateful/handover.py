"""A memory engine whose store outlives it, so that histories on it have crashes too: the next engine gets the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ropeway.domain.clock import Clock
from ropeway.domain.errors import RopewayError
from ropeway.domain.ids import RandomBytes
from ropeway.engines.base import Engine
from ropeway.engines.memory import MemoryEngine
from ropeway.engines.memory.store import Store

__all__ = ["HandedOver", "HandoverHarness"]


class HandedOver(MemoryEngine):
    """A memory engine that can say what it leaves, and begin with what another left."""

    def left_behind(self) -> Store:
        """What a crash would leave: all of it."""
        return self._store

    def inherit(self, engine: HandedOver) -> None:
        self._store = engine.left_behind()

    def source(self) -> tuple[Clock, RandomBytes]:
        return self._clock, self._random


class HandoverHarness:
    """Makes engines of one class, and lets them die between two calls, or before or after one."""

    failpoints = ("pre_call", "post_call")

    def __init__(self, engine: type[HandedOver] = HandedOver, name: str = "memory") -> None:
        self.name = name
        self._engine = engine

    async def start(self, clock: Clock, random: RandomBytes) -> Engine:
        engine = self._engine(clock, random)
        await engine.open()
        return engine

    async def stop(self, engine: Engine) -> None:
        await engine.shut()

    async def reopen(self, engine: Engine) -> Engine:
        return await self.crash(engine)

    async def crash(self, engine: Engine) -> Engine:
        assert isinstance(engine, HandedOver)
        following = self._engine(*engine.source())
        following.inherit(engine)
        await engine.shut()
        await following.open()
        return following

    async def beside(self, engine: Engine) -> Engine:
        assert isinstance(engine, HandedOver)
        other = self._engine(*engine.source())
        other.inherit(engine)
        await other.open()
        return other

    async def die(self, engine: Engine, point: str, call: Callable[[], Awaitable[object]]) -> Engine:
        if point == "post_call":
            try:
                await call()
            except RopewayError as error:
                raise AssertionError("a call of the engine in memory cannot fail") from error
        return await self.crash(engine)

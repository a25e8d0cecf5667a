"""How a suite makes, reopens and breaks one kind of engine.

An engine's author writes a `Harness`, and a `DurableHarness` when its jobs outlive its process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

from ropeway.domain.clock import Clock
from ropeway.domain.ids import RandomBytes
from ropeway.engines.base import Engine
from ropeway.engines.memory import MemoryEngine

__all__ = ["DurableHarness", "FailpointHarness", "Harness", "MemoryHarness"]


class Harness(Protocol):
    """Makes engines of one kind, each on a store of its own."""

    @property
    def name(self) -> str:
        """What to call it in test ids and replay lines."""
        ...

    async def start(self, clock: Clock, random: RandomBytes) -> Engine:
        """A new engine on an empty store, open, with this clock and randomness and no other."""
        ...

    async def stop(self, engine: Engine) -> None:
        """Shut the engine if it is not shut yet, and delete its store."""
        ...


@runtime_checkable
class DurableHarness(Harness, Protocol):
    """The same, where a store outlives the engine that wrote it."""

    async def reopen(self, engine: Engine) -> Engine:
        """Shut this engine cleanly; another one, open on its store."""
        ...

    async def crash(self, engine: Engine) -> Engine:
        """Let this engine die as its process would at `kill -9`; another one, open on what it left."""
        ...

    async def beside(self, engine: Engine) -> Engine:
        """A second open engine on the same store, as another process would have it; `stop` shuts it too."""
        ...


@runtime_checkable
class FailpointHarness(DurableHarness, Protocol):
    """The same, where an engine can be made to die inside a call."""

    @property
    def failpoints(self) -> tuple[str, ...]:
        """Names of the points; those that begin with `pre` come before the call is durable."""
        ...

    async def die(self, engine: Engine, point: str, call: Callable[[], Awaitable[object]]) -> Engine:
        """Make the call, and let the engine die at this point of it; another one, open on what it left.

        A call that never comes to the point is made in full before the engine dies.
        """
        ...


class MemoryHarness:
    """The engine in this process's memory."""

    name = "memory"

    async def start(self, clock: Clock, random: RandomBytes) -> Engine:
        engine = MemoryEngine(clock, random)
        await engine.open()
        return engine

    async def stop(self, engine: Engine) -> None:
        await engine.shut()

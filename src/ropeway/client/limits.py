"""Limits as the world sees them, and who looks at them and sets them: on an engine, and blocking."""

from __future__ import annotations

from typing import Annotated, Protocol

import msgspec

from ropeway.client.thread import LoopThread
from ropeway.client.wire import timestamp
from ropeway.domain.clock import Clock
from ropeway.domain.limit import LimitPolicy, LimitState
from ropeway.engines.base import Engine

__all__ = [
    "LimitAdmin",
    "LimitBody",
    "LimitList",
    "LimitRequest",
    "LocalLimits",
    "SyncLimits",
    "limit_body",
]


class LimitRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to count for a limit's key instead of what jobs bring; with nothing in it, there is no limit.

    `max_running` jobs at once; `per_s` starts, or tokens, a second, and up to `burst` of them at once.
    """

    max_running: Annotated[int, msgspec.Meta(ge=1, le=10**9)] | None = None
    per_s: Annotated[float, msgspec.Meta(gt=0, le=1e12)] | None = None
    burst: Annotated[float, msgspec.Meta(gt=0, le=1e12)] | None = None


class LimitBody(msgspec.Struct, frozen=True):
    """A limit's key now.

    `running` jobs of it run, `parked` wait for it. `left` is what its bucket held when it was last taken from; None: it
    is full, or there is none. `policy` is what an operator has set; None: what jobs bring counts.
    """

    key: str
    running: int = 0
    parked: int = 0
    left: float | None = None
    paused_until: str | None = None
    policy: LimitRequest | None = None


class LimitList(msgspec.Struct, frozen=True):
    data: list[LimitBody]


class LimitAdmin(Protocol):
    """Limits, for who may set them."""

    async def find(self) -> list[LimitBody]:
        """The limits under which jobs run or wait, or of which something is taken, set or paused."""
        ...

    async def set(
        self, key: str, *, max_running: int | None = None, per_s: float | None = None, burst: float | None = None
    ) -> LimitBody:
        """Have this count for a key instead of what jobs bring, at once, for those that wait too.

        With nothing there is no limit. Raises InvalidRequest.
        """
        ...

    async def clear(self, key: str) -> LimitBody:
        """Have what jobs bring count again."""
        ...


class LocalLimits:
    """`LimitAdmin` on an engine."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def find(self) -> list[LimitBody]:
        now_ms = self._clock.now_ms()
        return [limit_body(state, now_ms) for state in await self._engine.limits()]

    async def set(
        self, key: str, *, max_running: int | None = None, per_s: float | None = None, burst: float | None = None
    ) -> LimitBody:
        return await self._put(key, LimitPolicy(max_running, per_s, burst))

    async def clear(self, key: str) -> LimitBody:
        return await self._put(key, None)

    async def _put(self, key: str, policy: LimitPolicy | None) -> LimitBody:
        (state,) = await self._engine.set_limits({key: policy})
        return limit_body(state, self._clock.now_ms())


class SyncLimits:
    """A `LimitAdmin` whose methods block."""

    def __init__(self, thread: LoopThread, limits: LimitAdmin) -> None:
        self._thread = thread
        self._limits = limits

    def find(self) -> list[LimitBody]:
        """As `LimitAdmin.find`."""
        return self._thread.run(self._limits.find())

    def set(
        self, key: str, *, max_running: int | None = None, per_s: float | None = None, burst: float | None = None
    ) -> LimitBody:
        """As `LimitAdmin.set`."""
        return self._thread.run(self._limits.set(key, max_running=max_running, per_s=per_s, burst=burst))

    def clear(self, key: str) -> LimitBody:
        """As `LimitAdmin.clear`."""
        return self._thread.run(self._limits.clear(key))


def limit_body(state: LimitState, now_ms: int) -> LimitBody:
    """The public form of a limit's state."""
    policy = state.policy
    return LimitBody(
        state.key,
        state.running,
        state.parked,
        state.level,
        timestamp(state.paused_until_ms) if state.paused_until_ms > now_ms else None,
        None if policy is None else LimitRequest(policy.max_running, policy.per_s, policy.burst),
    )

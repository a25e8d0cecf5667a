"""Where time comes from. Nothing in Ropeway reads the time but through a `Clock` or the engine."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """A source of time; tests give a manual one."""

    def now_ms(self) -> int:
        """The wall clock: milliseconds since the Unix epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """A clock that never steps back, in seconds; for waits and durations only."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

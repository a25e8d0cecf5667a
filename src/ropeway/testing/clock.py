"""A clock that stands still until a test moves it."""

from __future__ import annotations

__all__ = ["ManualClock"]

START_MS = 1_700_000_000_000  # a plain instant in 2023: ids and epochs of a test look like real ones


class ManualClock:
    """Both clocks of `domain.clock.Clock`, moved by hand."""

    def __init__(self, start_ms: int = START_MS) -> None:
        self._now_ms = start_ms
        self._monotonic_ms = 0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._monotonic_ms / 1000

    def advance(self, ms: int = 0, *, s: float = 0) -> None:
        """Let time pass on both clocks. Raises ValueError below 0: time that passes does not step back."""
        step = ms + round(s * 1000)
        if step < 0:
            raise ValueError("time passes forwards; use jump() for a wall clock that is set back")
        self._now_ms += step
        self._monotonic_ms += step

    def jump(self, ms: int) -> None:
        """Set the wall clock forwards or back by `ms`, as an operator or NTP does. The monotonic clock stands."""
        self._now_ms += ms

"""Notices that a worker has gone deaf: it has room for work, and its questions for some are not answered.

Not so when the engine answers nobody, or when user code holds the event loop: then there is no telling. But an engine
that answers the keeper's renewals, from their own connection, and never this loop's questions, has a worker that would
hold its place for ever and do nothing: it leaves, and its process ends, so that another is started.
"""

from __future__ import annotations

from typing import Protocol

from ropeway.domain.clock import Clock

__all__ = ["DEAF_EXIT", "Watchdog", "WorkerDeaf"]

DEAF_EXIT = 70  # sysexits.h, EX_SOFTWARE: an internal fault was found
INTERVALS = 3  # reliability.md, 9


class WorkerDeaf(RuntimeError):
    """The engine answers, and this worker hears nothing: it must be started again."""


class _Asking(Protocol):
    @property
    def polls(self) -> int: ...

    @property
    def is_due(self) -> bool: ...


class _Answered(Protocol):
    @property
    def answered(self) -> bool: ...


class Watchdog:
    """`check` it often, in the loop: what passes between two looks counts as one interval at the most."""

    def __init__(self, poller: _Asking, keeper: _Answered, interval_s: float, clock: Clock) -> None:
        self._poller = poller
        self._keeper = keeper
        self._interval_s = interval_s
        self._clock = clock
        self._polls = -1
        self._silent_s = 0.0
        self._looked_at_s = clock.monotonic_s()

    def check(self) -> None:
        """Raises WorkerDeaf."""
        now_s = self._clock.monotonic_s()
        passed_s, self._looked_at_s = min(now_s - self._looked_at_s, self._interval_s), now_s
        if self._polls == self._poller.polls and self._poller.is_due and self._keeper.answered:
            self._silent_s += passed_s
        else:
            self._polls, self._silent_s = self._poller.polls, 0.0
        if self._silent_s > INTERVALS * self._interval_s:
            raise WorkerDeaf(
                f"no question for work was answered for {self._silent_s:.0f} s, though the engine answers renewals"
            )

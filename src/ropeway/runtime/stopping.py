"""How parts of the worker ask a running attempt to stop, without knowing who runs it."""

from __future__ import annotations

from typing import Protocol

from ropeway.runtime.attempt import Attempt, Reason

__all__ = ["Ask"]


class Ask(Protocol):
    """Asks an attempt to stop. In the loop. The first reason counts, but for `lost`, which beats them all."""

    def __call__(self, attempt: Attempt, reason: Reason, /) -> None: ...

"""Whether it pays to wait for jobs that nobody has submitted yet: a bet, placed by what came of the last.

A batch that went as soon as the queue was found empty, and would have had company had it waited (a job of its key came
within `max_wait`, while the call ran), makes the next ones wait; a wait in vain ends that. So lone jobs wait for
nobody, nor does a client that awaits each result before it submits the next; and many clients that do so find
themselves in one batch.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

__all__ = ["Bet"]


class _Early(NamedTuple):
    call: object
    key: Hashable
    until_s: float


class Bet:
    """`waits`: what is to be done while nobody is known to come."""

    def __init__(self) -> None:
        self.waits = False
        self._early: _Early | None = None

    def went_early(self, call: object, key: Hashable, until_s: float) -> None:
        """A batch of this key went, and could have waited until then."""
        self._early = _Early(call, key, until_s)

    def ended(self, call: object) -> None:
        """A call is over: who comes from now on may come because of its results."""
        if self._early is not None and self._early.call is call:
            self._early = None

    def came(self, key: Hashable, at_s: float) -> None:
        """A job arrived: perhaps too late for a batch that did not wait."""
        early = self._early
        if early is not None and early.key == key and at_s < early.until_s:
            self.waits = True

    def waited_in_vain(self) -> None:
        """A batch waited, and nobody came."""
        self.waits = False

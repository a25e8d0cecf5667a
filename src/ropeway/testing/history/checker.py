"""Judges a history by every invariant."""

from __future__ import annotations

from collections.abc import Iterable

from ropeway.testing.history.facts import Facts
from ropeway.testing.history.invariants import INVARIANTS
from ropeway.testing.history.record import History, Violation

__all__ = ["check"]


def check(history: History, invariants: Iterable[str] = tuple(INVARIANTS)) -> list[Violation]:
    """Where the history broke these invariants, in the order of its steps; empty when it broke none."""
    facts = Facts(history)
    found = [violation for name in invariants for violation in INVARIANTS[name](facts)]
    return sorted(found, key=lambda violation: violation.step)

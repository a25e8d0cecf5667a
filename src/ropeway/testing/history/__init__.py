"""Seeded histories of an engine, and the judgement of them.

    history = await drive(seed, harness)     # the same seed, the same history
    for violation in check(history): ...     # which promise was broken, at which step, and how

A failing seed is kept with `keep_seed` and told by `replay_line`; `python -m ropeway.testing.history` runs one again.
"""

from ropeway.testing.history.checker import check
from ropeway.testing.history.driver import DEFAULT_STEPS, drive
from ropeway.testing.history.invariants import INVARIANTS
from ropeway.testing.history.record import History, Violation

__all__ = ["DEFAULT_STEPS", "INVARIANTS", "History", "Violation", "check", "drive"]

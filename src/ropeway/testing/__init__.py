"""Helpers for tests: a clock that tests own, seeded randomness, an engine that fails on demand, and the suites.

`conformance` is the protocol's promises as checks that any engine runs; `history` drives an engine through seeded
histories with zombies, lost replies and crashes, and judges what came of them. No product file imports this room.
"""

from ropeway.testing.clock import ManualClock
from ropeway.testing.faults import FaultyEngine, Moment, scripted, seeded
from ropeway.testing.random import seeded_random

__all__ = ["FaultyEngine", "ManualClock", "Moment", "scripted", "seeded", "seeded_random"]

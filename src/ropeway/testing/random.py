"""Randomness that a seed decides."""

from __future__ import annotations

import random

from ropeway.domain.ids import RandomBytes

__all__ = ["seeded_random"]


def seeded_random(seed: int | str) -> RandomBytes:
    """A source of random bytes, the same for the same seed."""
    return random.Random(seed).randbytes  # noqa: S311 (tests are to be repeatable, not unguessable)

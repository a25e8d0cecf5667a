"""Identifiers: prefixed, time-ordered, unguessable; and the source of randomness that tests replace."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["LEASE_TOKEN_BYTES", "SEED_BYTES", "RandomBytes", "job_id", "lease_token", "system_random"]

RandomBytes = Callable[[int], bytes]
"""Gives n random bytes; `os.urandom` in production, a seeded generator in tests."""

SEED_BYTES = 10  # random bytes in a job id: 80 bits, as in a ULID
LEASE_TOKEN_BYTES = 12  # reliability rule 4: a fence carries at least 96 random bits

system_random: RandomBytes = os.urandom


def job_id(now_ms: int, seed: bytes) -> str:
    """`job_` and 32 hex digits: 48 bits of time in ms, then the 80 bits of `seed` (10 bytes)."""
    return f"job_{now_ms:012x}{seed.hex()}"


def lease_token(random: RandomBytes) -> str:
    """The random part of a fence: 96 bits, as 24 hex digits."""
    return random(LEASE_TOKEN_BYTES).hex()

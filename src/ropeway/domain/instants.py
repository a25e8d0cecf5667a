"""Instants as the world writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

__all__ = ["timestamp"]


def timestamp(at_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    seconds, ms = divmod(at_ms, 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=256)  # many events and jobs fall in one second
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").removesuffix("+00:00")

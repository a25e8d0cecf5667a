"""How long to wait before an engine that did not answer is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ropeway.domain.retry import Retry, backoff_s

__all__ = ["Jitter", "Patience"]

Jitter = Callable[[], float]
"""Gives a number in [0, 1); `random.random` in production."""

_ENGINE = Retry(max_attempts=1000, base_s=0.05, factor=2.0, cap_s=1.0)  # a local engine is back within milliseconds


class Patience:
    """Waits between tries, each ceiling twice the last, up to 1 s, with full jitter."""

    def __init__(self, jitter: Jitter) -> None:
        self._jitter = jitter
        self._tries = 0

    async def wait(self) -> None:
        self._tries += 1
        await asyncio.sleep(backoff_s(_ENGINE, self._tries, self._jitter()))

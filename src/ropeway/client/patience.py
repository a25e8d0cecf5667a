"""Trying again what may pass: calls that left no doubt, or that are safe to repeat."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.retry import Retry, backoff_s

__all__ = ["DEFAULT_PERSISTENCE", "NO_PERSISTENCE", "Sleep", "persistently"]

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

DEFAULT_PERSISTENCE = Retry(max_attempts=4, base_s=0.2, cap_s=5.0)
"""Four tries within some seconds: longer than a restart behind a balancer, shorter than a person's patience."""

NO_PERSISTENCE = Retry(max_attempts=1)
"""For calls that are not safe to repeat."""

WAIT_LIMIT_S = 30.0  # asked to wait longer than this, the caller should know rather than hang


async def persistently(
    call: Callable[[], Awaitable[T]], policy: Retry = DEFAULT_PERSISTENCE, sleep: Sleep = asyncio.sleep
) -> T:
    """`call`'s answer; tried again while it raises EngineUnavailable, with full jitter, and never before Retry-After.

    Only for calls that are safe to repeat. Raises what the last try raised.
    """
    attempt = 1
    while True:
        try:
            return await call()
        except EngineUnavailable as error:
            wait_s = backoff_s(policy, attempt, random.random(), error.retry_after_s)  # noqa: S311 - jitter only
            if attempt >= policy.max_attempts or wait_s > WAIT_LIMIT_S:
                raise
        await sleep(wait_s)
        attempt += 1

"""The door to one provider: so many calls at once from this worker, and none while it told us to wait.

This is where a budget of requests and tokens that all workers share has its place: whoever enters waits here, and who
was refused for its rate tells it here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ropeway.domain.clock import Clock
from ropeway.models.refusals import RATE_LIMITED, Refused

__all__ = ["Gate", "Sleep"]

Sleep = Callable[[float], Awaitable[None]]


class Gate:
    """Lets at most `limit` calls be in flight. A pause holds all of them up, those that come later too."""

    def __init__(self, limit: int, max_wait_s: float, clock: Clock, sleep: Sleep) -> None:
        self._places = asyncio.Semaphore(limit)
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._sleep = sleep
        self._open_at_s = 0.0

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Within, a call may be made. Raises Refused when the pause is longer than a worker should wait."""
        async with self._places:
            while (left_s := self.pause_left_s) > 0:
                if left_s > self._max_wait_s:
                    raise Refused(
                        f"the provider takes no more calls for {left_s:.0f} s",
                        code=RATE_LIMITED,
                        after_s=left_s,
                    )
                await self._sleep(left_s)
            yield

    def pause(self, seconds: float) -> None:
        """Let nobody in for so long. A shorter pause does not end a longer one."""
        self._open_at_s = max(self._open_at_s, self._clock.monotonic_s() + seconds)

    @property
    def pause_left_s(self) -> float:
        return max(self._open_at_s - self._clock.monotonic_s(), 0.0)

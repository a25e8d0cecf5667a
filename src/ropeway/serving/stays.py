"""Who stays: connections that are open for long, counted for each key and tenant, and ended with their key.

A request is asked for its key once, as it comes. A stream, a socket or a long-poll may go on for hours, so the keys of
those that are open are looked at again all the time: in one question for all of them, and in none while no key is asked
for here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

from ropeway.domain.caller import Caller
from ropeway.domain.errors import RateLimited, RopewayError

__all__ = ["Stay", "Stays"]

_log = logging.getLogger("ropeway.serving")

LOOK_INTERVAL_S = 0.5
AGAIN_S = 5.0  # told to who has as many streams as it may

Dead = Callable[[Collection[Caller]], Awaitable[Collection[Caller]]]
"""Those of these callers whose key, or token, opens nothing any more."""


class Stay:
    """One open connection: whose it is, and what to call when its key is over."""

    __slots__ = ("caller", "expel")

    def __init__(self, caller: Caller, expel: Callable[[], None]) -> None:
        self.caller = caller
        self.expel = expel


class Stays:
    """All of them, at this gateway."""

    def __init__(self, dead: Dead) -> None:
        self._dead = dead
        self._keyed: set[Stay] = set()
        self._by_key: Counter[str] = Counter()
        self._by_tenant: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None

    def of_tenant(self, tenant: str) -> int:
        """How many connections a tenant has open here."""
        return self._by_tenant[tenant]

    def enter(self, caller: Caller, expel: Callable[[], None]) -> Stay:
        """Count a connection in. `expel` is called, once, when the caller's key is revoked or over: close it then.

        To be followed by `leave`. Raises RateLimited as `check` does.
        """
        self.check(caller)
        stay = Stay(caller, expel)
        self._count(caller, +1)
        if caller.key_id is not None:
            self._keyed.add(stay)
            if self._looking is None or self._looking.done():
                self._looking = asyncio.get_running_loop().create_task(self._keep_looking())
        return stay

    def check(self, caller: Caller) -> None:
        """Raises RateLimited when the caller has as many open as it may."""
        _check("key", self._by_key[caller.key_id or ""], caller.limits.max_streams)
        _check("tenant", self._by_tenant[caller.tenant], caller.tenant_limits.max_streams)

    def leave(self, stay: Stay) -> None:
        """It is closed."""
        self._keyed.discard(stay)
        self._count(stay.caller, -1)

    async def look(self) -> None:
        """Have those leave whose key is over."""
        callers = {stay.caller for stay in self._keyed}
        dead = set(await self._dead(callers)) if callers else set()
        for stay in [stay for stay in self._keyed if stay.caller in dead]:
            self._keyed.discard(stay)
            stay.expel()

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    def _count(self, caller: Caller, step: int) -> None:
        for counter, name in ((self._by_tenant, caller.tenant), (self._by_key, caller.key_id or "")):
            counter[name] += step
            if not counter[name]:
                del counter[name]

    async def _keep_looking(self) -> None:
        while self._keyed:
            await asyncio.sleep(LOOK_INTERVAL_S)
            with contextlib.suppress(RopewayError):  # an engine that does not answer is asked again
                await self.look()


def _check(who: str, count: int, most: int | None) -> None:
    if most is not None and count >= most:
        refusal = RateLimited(f"this {who} has {count} streams, sockets and waits open here, as many as it may")
        refusal.retry_after_s = AGAIN_S
        raise refusal

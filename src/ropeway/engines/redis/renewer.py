"""Renewals from outside the event loop: another thread, or another process that has only the engine's URL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ropeway.domain.clock import Clock
from ropeway.domain.lease import Renewal
from ropeway.engines.redis import upkeep
from ropeway.engines.redis.address import Address
from ropeway.engines.redis.partition import Partition
from ropeway.engines.redis.route import Route, root_of

__all__ = ["RedisRenewer", "merged"]

Answer = TypeVar("Answer")


class RedisRenewer:
    """Renews and closes sessions, blocking, from any thread: it has a thread, a loop and connections of its own.

    Raises EngineUnavailable when a server is not to be reached; then try again.
    """

    def __init__(self, address: Address, clock: Clock | None = None) -> None:
        self._address = address
        self._clock = clock
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ropeway-renewer", daemon=True)
        self._thread.start()
        self._partitions: list[Partition] = []

    def renew(self, session: str, ttl_ms: int) -> Renewal:
        """As `Execution.renew`."""
        return merged(self._everywhere(lambda partition: upkeep.renew(partition, session, ttl_ms)))

    def close_session(self, session: str) -> None:
        """As `Execution.close`: for a supervisor that saw its worker die."""
        self._everywhere(lambda partition: upkeep.close(partition, session))

    def close(self) -> None:
        """Let go of the connections."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _everywhere(self, ask: Callable[[Partition], Awaitable[Answer]]) -> list[Answer]:
        return asyncio.run_coroutine_threadsafe(self._ask(ask), self._loop).result()

    async def _ask(self, ask: Callable[[Partition], Awaitable[Answer]]) -> list[Answer]:
        if not self._partitions:
            self._partitions = [self._partition(number) for number in range(self._address.partitions)]
        return await asyncio.gather(*(ask(partition) for partition in self._partitions))

    async def _shut(self) -> None:
        for partition in self._partitions:
            await partition.route.shut()

    def _partition(self, number: int) -> Partition:
        root = root_of(self._address, number)
        route = Route(self._address, self._address.ssl_context(), root, lambda link: partition.meet(link))
        partition = Partition(route, root, self._clock)
        return partition


def merged(renewals: list[Renewal]) -> Renewal:
    """A session that is lost in one partition is lost."""
    return Renewal(
        all(renewal.alive for renewal in renewals),
        tuple(sorted(job_id for renewal in renewals for job_id in renewal.cancelled)),
    )

"""Seeded bugs about limits and the floor: places miscounted, jobs forgotten under a key, turns not taken."""

from __future__ import annotations

from collections.abc import Callable

from handover import HandedOver
from mutants_queues import WithLine

from ropeway.domain.clock import Clock
from ropeway.domain.ids import RandomBytes
from ropeway.domain.job import Job
from ropeway.engines.memory.limits import Limits
from ropeway.engines.memory.line import Line

__all__ = [
    "BucketsStayFull",
    "EndsCallNobody",
    "FloorIgnored",
    "ParkedCountAsInLine",
    "PlacesUncounted",
    "QueueRoomIgnored",
]


class _WithLimits(HandedOver):
    """A memory engine with limits of another kind."""

    keys: type[Limits] = Limits

    def __init__(self, clock: Clock, random: RandomBytes) -> None:
        super().__init__(clock, random)
        store = self._store
        store.limits = self.keys(store.jobs.__getitem__, store._call, lambda: store.board.fire(("upkeep",)))


class PlacesUncounted(_WithLimits):
    """A start takes nothing: any number may run."""

    class keys(Limits):  # noqa: N801 (it is the attribute above)
        def start(self, job: Job, now_ms: int) -> None:
            return None


class BucketsStayFull(_WithLimits):
    """Places are counted, and rates are not kept."""

    class keys(Limits):  # noqa: N801
        def start(self, job: Job, now_ms: int) -> None:
            super().start(job, now_ms)
            for limit in job.options.limits:
                self._keep(self._state(limit.key).holding(None, now_ms))


class EndsCallNobody(_WithLimits):
    """Who is parked is looked at when a bucket refills, and not when a place becomes free."""

    class keys(Limits):  # noqa: N801
        def call_freed(self, now_ms: int) -> None:
            self._freed.clear()


class FloorIgnored(WithLine):
    """The highest band always has its turn."""

    class line(Line):  # noqa: N801
        def pop(self, is_queued: Callable[[str, int], bool]) -> str | None:
            self._passed = {}
            return super().pop(is_queued)


class QueueRoomIgnored(WithLine):
    """A queue's own limit is not looked at."""

    class line(Line):  # noqa: N801
        def room(self, wanted: int) -> int:
            return wanted


class ParkedCountAsInLine(HandedOver):
    """A parked job's position is counted in its queue's line."""

    async def position(self, tenant: str, job_id: str, limit: int = 10_000) -> int | None:
        job = self._store.owned(tenant, job_id)
        if job is None or job.parked is None:
            return await super().position(tenant, job_id, limit)
        number = self._store.number(job_id)
        return self._store.line(job.queue).ahead_of(job.rank, number, self._store.is_queued, limit)

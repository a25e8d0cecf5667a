"""What the roles of the memory engine share: the store, the clock, and whether it is open."""

from __future__ import annotations

from ropeway.domain.change import Change, ends_unheard, overdue, with_output
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.event import START
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.domain.job import Job
from ropeway.domain.log import page
from ropeway.domain.output import Made
from ropeway.engines.memory.store import Store

__all__ = ["Role"]


class Role:
    """A part of the engine. Nothing in any of them awaits, so every method is one atomic step."""

    def __init__(self, clock: Clock | None = None, random: RandomBytes = system_random) -> None:
        self._clock = clock or SystemClock()
        self._random = random
        self._store = Store()
        self._is_open = False

    def _now(self) -> int:
        if not self._is_open:
            raise EngineUnavailable("the engine is not open")
        return self._clock.now_ms()

    def _kept(self, job: Job, change: Change) -> Change:
        """The change; where it ends the job and no attempt did, with the output that its log holds."""
        if not ends_unheard(change):
            return change
        stored = self._store.events.get(job.id, ())
        return with_output(change, Made(page(job, stored, START, len(stored) + 4).events).row_output)

    def _expire(self, job: Job, now: int) -> bool:
        """Fail a queued job that waited longer than it may."""
        if job.queue_deadline_ms is None or job.queue_deadline_ms > now:
            return False
        self._store.apply(job, overdue(job, now), now)
        return True

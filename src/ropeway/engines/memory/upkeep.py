"""What one worker at a time does for all: promote, prune, elect."""

from __future__ import annotations

from ropeway.domain.change import promoted
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Promotion
from ropeway.engines.memory.base import Role

__all__ = ["UpkeepRole"]


class UpkeepRole(Role):
    """Time passing, made true in the store."""

    async def promote(self, limit: int) -> Promotion:
        now = self._now()
        moved = 0
        while moved < limit and (job_id := self._store.pop_due(self._store.due, now)) is not None:
            job = self._store.jobs.get(job_id)
            if job is None:
                continue
            if job.state is State.scheduled and job.run_at_ms is not None and job.run_at_ms <= now:
                self._store.apply(job, promoted(job), now)
                moved += 1
            elif job.state is State.queued:
                moved += self._expire(job, now)
        self._store.limits.call_freed(now)
        moved += self._store.limits.call_due(now)
        times = [at_ms for at_ms in (self._store.next_due_ms(), self._store.limits.due_ms()) if at_ms is not None]
        return Promotion(moved, min(times, default=None))

    async def prune(self, limit: int) -> int:
        now = self._now()
        pruned = 0
        while pruned < limit and (job_id := self._store.pop_due(self._store.expiring, now)) is not None:
            job = self._store.jobs.get(job_id)
            if job is not None and job.expires_at_ms is not None and job.expires_at_ms <= now:
                self._store.remove(job)
                pruned += 1
        for key, claim in tuple(self._store.claims.items()):
            if claim.expires_at_ms <= now and claim.job_id not in self._store.jobs:
                del self._store.claims[key]
        self._store.forget_past(now)
        self._store.limits.forget_idle(now)
        for line in self._store.lines.values():
            line.forget_idle_flows()
        return pruned

    async def elect(self, duty: str, holder: str, ttl_ms: int) -> bool:
        now = self._now()
        current, until = self._store.duties.get(duty, (holder, 0))
        if current != holder and until > now:
            return False
        self._store.duties[duty] = (holder, now + ttl_ms)
        return True

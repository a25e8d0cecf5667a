"""Rescue: what becomes of the attempts of a worker that is gone."""

from __future__ import annotations

from ropeway.domain.change import worker_lost
from ropeway.domain.job import Job
from ropeway.engines.memory.base import Role

__all__ = ["RescueRole"]


class RescueRole(Role):
    """Ends lost attempts, each under a new epoch, so that the old holder's writes come too late."""

    async def rescue(self, limit: int) -> int:
        now = self._now()
        lost = [session for session in self._store.sessions.values() if session.expires_at_ms <= now]
        rescued = 0
        for session in lost:
            for job_id in sorted(session.held)[: limit - rescued]:
                self._rescue(self._store.jobs[job_id], now)
                rescued += 1
            if not session.held:
                self._store.sessions.pop(session.card.session)
        self._store.limits.call_freed(now)
        return rescued

    async def close(self, session: str) -> None:
        now = self._now()
        held = self._store.sessions.pop(session, None)
        for job_id in sorted(held.held if held else ()):
            self._rescue(self._store.jobs[job_id], now)
        self._store.limits.call_freed(now)

    def _rescue(self, job: Job, now: int) -> None:
        self._store.apply(job, self._kept(job, worker_lost(job, now)), now)

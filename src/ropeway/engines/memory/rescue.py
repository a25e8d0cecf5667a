"""Rescue: what becomes of the attempts of a worker that is gone."""

from __future__ import annotations

import msgspec

from ropeway.domain.errors import (
    JobError,
)
from ropeway.domain.event import Cursor
from ropeway.domain.job import Job
from ropeway.domain.lease import (
    next_epoch,
)
from ropeway.domain.lifecycle import State
from ropeway.engines.memory.base import Role, to_json

__all__ = ["RescueRole"]

_WORKER_LOST = JobError("worker_lost", "the worker that ran this job was lost")


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
        return rescued

    async def close(self, session: str) -> None:
        now = self._now()
        held = self._store.sessions.pop(session, None)
        for job_id in sorted(held.held if held else ()):
            self._rescue(self._store.jobs[job_id], now)

    def _rescue(self, job: Job, now: int) -> None:
        """End the attempt of a lost worker under a new epoch, so that the old holder's writes come too late."""
        epoch = next_epoch(job.epoch, now)
        crashes = job.crashes + 1
        fenced = {"token": None, "crashes": crashes}
        if job.cancel_requested_at_ms is not None:
            self._end_lost(job, State.cancelled, now, epoch, None, fenced)
        elif crashes >= job.options.max_crashes:
            error = msgspec.structs.replace(_WORKER_LOST, attempt=job.attempt)
            self._end_lost(job, State.failed, now, epoch, to_json(error), fenced)
        else:
            error = msgspec.structs.replace(_WORKER_LOST, attempt=job.attempt, retryable=True)
            self._store.again(job, "worker_lost", now, Cursor(epoch, 0), to_json(error), crashes=crashes, token=None)

    def _end_lost(
        self, job: Job, state: State, now: int, epoch: int, error: str | None, fenced: dict[str, int | None]
    ) -> None:
        """A lost attempt that ends its job: its opening is stored, since the terminal event stands in another epoch."""
        self._store.keep_opening(job)
        self._store.finish(job, state, now, epoch=epoch, seq=1, started_epoch=0, error=error, **fenced)

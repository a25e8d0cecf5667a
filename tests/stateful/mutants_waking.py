"""Seeded bugs about waking: jobs that sleep on, jobs that nobody woke."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from handover import HandedOver

from ropeway.domain.change import woken
from ropeway.domain.errors import JobNotFound, LeaseLost
from ropeway.domain.job import Job
from ropeway.domain.lease import Assignment, Commit, Lease, LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.engines.memory.store import Session

__all__ = [
    "DeadlineOfTheOldTime",
    "SleepersSleepOn",
    "SnoozesForgetTheirWaking",
    "SnoozesLookBefore",
    "WakesStrangers",
    "WakingIsTwoSteps",
    "WakingOutlivesItsAttempt",
    "WokenOutOfLine",
]


class SleepersSleepOn(HandedOver):
    """A job that waits for a time is answered as woken, and goes on waiting."""

    def _wake(self, tenant: str, job_id: str, now: int) -> Job | JobNotFound:
        job = self._store.owned(tenant, job_id)
        return job if job is not None and job.state is State.scheduled else super()._wake(tenant, job_id, now)


class SnoozesForgetTheirWaking(HandedOver):
    """A snooze does not ask whether its attempt was woken: a waking between look and commit is lost."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        job = self._store.jobs.get(lease.job_id)
        if job is not None and not job.state.terminal:
            self._store.jobs[job.id] = msgspec.structs.replace(job, woken_epoch=0)
        return super()._commit(lease, outcome, now)


class SnoozesLookBefore(HandedOver):
    """A commit asks whether the attempt was woken, and ends it later: a waking in between is lost."""

    async def commit(self, batch: Sequence[Commit]) -> list[State | LeaseLost]:
        jobs = [job for each in batch if (job := self._store.jobs.get(each.lease.job_id)) is not None]
        await asyncio.sleep(0)
        for seen in jobs:
            job = self._store.jobs.get(seen.id)
            if job is not None and job.epoch == seen.epoch:
                self._store.jobs[job.id] = msgspec.structs.replace(job, woken_epoch=seen.woken_epoch)
        return await super().commit(batch)


class WakingIsTwoSteps(HandedOver):
    """Looks at the jobs, and writes them as they were then: what was written in between is undone."""

    async def wake(self, tenant: str, job_ids: Sequence[str]) -> list[Job | JobNotFound]:
        seen = {job_id: self._store.owned(tenant, job_id) for job_id in job_ids}
        await asyncio.sleep(0)
        for job_id, job in seen.items():
            if job is not None and job.state is State.running and job_id in self._store.jobs:
                self._store.jobs[job_id] = job
        return await super().wake(tenant, job_ids)


class WokenOutOfLine(HandedOver):
    """The row says queued, and the job is in no line."""

    def _wake(self, tenant: str, job_id: str, now: int) -> Job | JobNotFound:
        job = self._store.owned(tenant, job_id)
        if job is None or job.state is not State.scheduled:
            return super()._wake(tenant, job_id, now)
        change = woken(job, now)
        assert change is not None
        self._store.jobs[job_id] = change.job
        return change.job


class WakesStrangers(HandedOver):
    """Jobs are looked up by id alone."""

    def _wake(self, tenant: str, job_id: str, now: int) -> Job | JobNotFound:
        job = self._store.jobs.get(job_id)
        return super()._wake(tenant if job is None else job.tenant, job_id, now)


class WakingOutlivesItsAttempt(HandedOver):
    """A job that was woken once never sleeps again."""

    def _assign(self, job: Job, session: Session, request: LeaseRequest, now: int) -> Assignment:
        held = super()._assign(job, session, request, now)
        running = self._store.jobs[job.id]
        if running.woken_epoch:
            self._store.jobs[job.id] = msgspec.structs.replace(running, woken_epoch=running.epoch)
        return held


class DeadlineOfTheOldTime(HandedOver):
    """A woken job may stay in its queue until it would have been late at its time."""

    def _wake(self, tenant: str, job_id: str, now: int) -> Job | JobNotFound:
        before = self._store.jobs.get(job_id)
        job = super()._wake(tenant, job_id, now)
        if isinstance(job, Job) and before is not None:
            job = self._store.jobs[job_id] = msgspec.structs.replace(job, queue_deadline_ms=before.queue_deadline_ms)
        return job

"""Seeded bugs about jobs: accepted, keyed, kept, told, counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from handover import HandedOver

from ropeway.domain.delivery import delivery_of
from ropeway.domain.errors import IdempotencyKeyReused, JobNotFound, LeaseLost
from ropeway.domain.event import Cursor
from ropeway.domain.ids import RandomBytes
from ropeway.domain.job import Job, NewJob, Receipt
from ropeway.domain.lease import Lease, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.log import EventPage
from ropeway.engines.base import Promotion, Refusal
from ropeway.engines.memory.store import Store

__all__ = [
    "AnswersBeforeItIsDurable",
    "CancelOverwritesDone",
    "DeadLetterDropped",
    "EachAttemptIsTold",
    "IdempotencyIgnoresBody",
    "KeyForgottenAtTheEnd",
    "KeysAcrossTenants",
    "LateJobsUntold",
    "LooksForWhatIsGone",
    "PageEndsEarly",
    "PruneOfLiveJob",
    "ReplayMakesAnew",
    "ResumeInclusive",
    "ResumeSkipsAtTheLimit",
    "TenantCheckMissing",
    "WriteWithoutVersion",
]


class IdempotencyIgnoresBody(HandedOver):
    """Another body under a used key gets the first body's job."""

    def _claimed(self, new: NewJob) -> Receipt | IdempotencyKeyReused | None:
        claim = self._store.claims.get((new.tenant, new.idempotency_key or ""))
        if claim is not None:
            new = msgspec.structs.replace(new, fingerprint=claim.fingerprint)
        return super()._claimed(new)


class KeyForgottenAtTheEnd(HandedOver):
    """A key is free again as soon as its job has ended, so that a late repeat runs it twice."""

    def _claimed(self, new: NewJob) -> Receipt | IdempotencyKeyReused | None:
        claim = self._store.claims.get((new.tenant, new.idempotency_key or ""))
        made = None if claim is None else self._store.jobs.get(claim.job_id)
        if made is not None and made.state.terminal:
            del self._store.claims[new.tenant, new.idempotency_key or ""]
        return super()._claimed(new)


class KeysAcrossTenants(HandedOver):
    """One space of keys for all tenants."""

    def _claimed(self, new: NewJob) -> Receipt | IdempotencyKeyReused | None:
        for (_, key), claim in self._store.claims.items():
            if key == new.idempotency_key:
                self._store.claims.setdefault((new.tenant, key), claim)
                break
        return super()._claimed(new)


class ReplayMakesAnew(HandedOver):
    """A submit repeated with the same id is stored as a new job over the old."""

    def _claimed(self, new: NewJob) -> Receipt | IdempotencyKeyReused | None:
        return None if new.idempotency_key is None else super()._claimed(new)


class EachAttemptIsTold(HandedOver):
    """A delivery at the end of every attempt, also of one that is tried again."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        state = super()._commit(lease, outcome, now)
        job = self._store.jobs.get(lease.job_id)
        if job is not None and state is State.queued:
            failed = msgspec.structs.replace(job, state=State.failed, finished_at_ms=now)
            delivery = delivery_of(failed)
            if delivery is not None and delivery.id not in self._store.jobs:
                self._store.add(delivery, now)
        return state


class LateJobsUntold(HandedOver):
    """A queue timeout ends the job on a path of its own, which knows no outbox."""

    def _expire(self, job: Job, now: int) -> bool:
        silent = msgspec.structs.replace(job.options, webhook=None)
        ended = super()._expire(msgspec.structs.replace(job, options=silent), now)
        if ended:
            last = self._store.jobs[job.id]
            self._store.jobs[job.id] = msgspec.structs.replace(last, options=job.options)
        return ended


class DeadLetterDropped(HandedOver):
    """Upkeep deletes failed jobs as it does the others, as queues do whose dead list has a TTL or a cap."""

    async def promote(self, limit: int) -> Promotion:
        for job in tuple(self._store.jobs.values()):
            if job.state is State.failed and (job.finished_at_ms or 0) < self._now():
                self._store.remove(job)
        return await super().promote(limit)


class PruneOfLiveJob(HandedOver):
    """Retention counts from the submit, whatever became of the job: a TTL on accepted work."""

    async def prune(self, limit: int) -> int:
        now = self._now()
        for job in tuple(self._store.jobs.values()):
            kept_s = job.options.retention_s
            if kept_s is not None and job.created_at_ms + kept_s * 1000 <= now:
                self._store.remove(job)
        return await super().prune(limit)


class CancelOverwritesDone(HandedOver):
    """A cancel writes its state without asking for the one that is there."""

    def _cancel(self, tenant: str, job_id: str, reason: str | None, now: int, *more: Any) -> Job | JobNotFound:
        job = self._store.owned(tenant, job_id)
        if job is None or not job.state.terminal:
            return super()._cancel(tenant, job_id, reason, now, *more)
        changed = msgspec.structs.replace(
            job, state=State.cancelled, version=job.version + 1, cancel_requested_at_ms=now, cancel_reason=reason
        )
        self._store.jobs[job_id] = changed
        return changed


class TenantCheckMissing(HandedOver):
    """Jobs are looked up by id alone."""

    async def get(self, tenant: str, job_ids: Sequence[str]) -> list[Job | None]:
        return [self._store.jobs.get(job_id) for job_id in job_ids]


class ResumeInclusive(HandedOver):
    """A reader that resumes gets the event that it had last once more."""

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        before = Cursor(after.epoch, after.seq - 1) if after.seq > 0 else after
        return await super().read(tenant, job_id, before, limit)


class ResumeSkipsAtTheLimit(HandedOver):
    """Stored events are cut to the page before the derived ones are put among them, and the rest is taken for read."""

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        page = await super().read(tenant, job_id, after, limit + 1)
        if page is None or len(page.events) <= limit:
            return page
        return EventPage(page.events[1 : limit + 1], page.ended)


class PageEndsEarly(HandedOver):
    """A page of an ended job says that it is the last, though more follow."""

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        page = await super().read(tenant, job_id, after, limit)
        return page and EventPage(page.events, self._store.jobs[job_id].state.terminal)


class LooksForWhatIsGone(HandedOver):
    """Upkeep meets a job that was purged since, and breaks."""

    async def promote(self, limit: int) -> Promotion:
        for at_ms, job_id in self._store.due:
            if at_ms <= self._now():
                self._store.number(job_id)
        return await super().promote(limit)


class WriteWithoutVersion(HandedOver):
    """A cancel request does not raise the version: an ETag tells that nothing has changed."""

    def _cancel(self, tenant: str, job_id: str, reason: str | None, now: int, *more: Any) -> Job | JobNotFound:
        before = self._store.jobs.get(job_id)
        job = super()._cancel(tenant, job_id, reason, now, *more)
        if isinstance(job, Job) and before is not None and job.state is State.running:
            job = self._store.jobs[job_id] = msgspec.structs.replace(job, version=before.version)
        return job


class AnswersBeforeItIsDurable(HandedOver):
    """A submit is answered before it is on the disk: a crash takes the newest job away."""

    def __init__(self, clock: Any, random: RandomBytes) -> None:
        super().__init__(clock, random)
        self._newest: str | None = None

    async def submit(self, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
        self._newest = jobs[-1].id
        return await super().submit(jobs)

    def left_behind(self) -> Store:
        job = self._store.jobs.get(self._newest or "")
        if job is not None:
            self._store.remove(job)
        return self._store

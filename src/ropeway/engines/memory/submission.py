"""What clients do: submit, cancel, retry, purge, queue policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ropeway.domain.cache import claim_of, counted_as, serves
from ropeway.domain.change import shared, stopped, woken
from ropeway.domain.errors import (
    IdempotencyKeyReused,
    JobLive,
    JobNotFound,
    JobNotRetryable,
)
from ropeway.domain.job import CLAIM_MS, Job, NewJob, Receipt, renewed
from ropeway.domain.limit import LimitPolicy, LimitState, check_policies
from ropeway.domain.queue import QueueChange, QueuePolicy
from ropeway.engines.base import Refusal
from ropeway.engines.memory.base import Role
from ropeway.engines.memory.store import Claim

__all__ = ["SubmissionRole"]


class SubmissionRole(Role):
    """Jobs in, and out before their end."""

    async def submit(self, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
        now = self._now()
        return [self._submit(job, now) for job in jobs]

    async def cancel(
        self,
        tenant: str,
        job_ids: Sequence[str],
        reason: str | None,
        word: str | None = None,
        for_all: bool = False,
    ) -> list[Job | JobNotFound]:
        now = self._now()
        jobs = [self._cancel(tenant, job_id, reason, now, word, for_all) for job_id in job_ids]
        self._store.limits.call_freed(now)
        return jobs

    async def wake(self, tenant: str, job_ids: Sequence[str]) -> list[Job | JobNotFound]:
        now = self._now()
        return [self._wake(tenant, job_id, now) for job_id in job_ids]

    async def retry(
        self, tenant: str, jobs: Sequence[tuple[str, str]]
    ) -> list[Receipt | JobNotFound | JobNotRetryable | Refusal]:
        now = self._now()
        return [self._retry(tenant, job_id, new_id, now) for job_id, new_id in jobs]

    async def purge(self, tenant: str, job_ids: Sequence[str]) -> list[JobNotFound | JobLive | None]:
        self._now()
        return [self._purge(tenant, job_id) for job_id in job_ids]

    async def set_queue(self, changes: Sequence[QueueChange]) -> list[QueuePolicy]:
        self._now()
        policies: dict[str, QueuePolicy] = {}
        for change in changes:  # all of them before any is made: one out of range stops the batch
            current = policies.get(change.queue) or self._store.policy(change.queue)
            policies[change.queue] = change.applied_to(current)
        for queue, policy in policies.items():
            self._store.line(queue).policy = policy
            self._store.board.fire((f"queue:{queue}",))
        return [policies[change.queue] for change in changes]

    async def set_limits(self, changes: Mapping[str, LimitPolicy | None]) -> list[LimitState]:
        now = self._now()
        check_policies(changes)
        return [self._store.limits.set(key, policy, now) for key, policy in changes.items()]

    def _submit(self, new: NewJob, now: int) -> Receipt | Refusal:
        earlier = self._claimed(new) or self._served(new, now)
        if earlier is not None:
            return earlier
        line = self._store.line(new.queue)
        refusal = line.refusal(new)
        if refusal is not None:
            return refusal
        job = self._store.add(new, now)
        self._claim(new, job, now)
        if new.cache is not None:
            held = Claim(job.id, "", now, new.cache.ttl_ms)
            self._store.claims[new.tenant, claim_of(new.cache.key)] = held
        return Receipt(job, depth=line.depth)

    def _claim(self, new: NewJob, job: Job, now: int) -> None:
        if new.idempotency_key is not None:
            claim = Claim(job.id, new.fingerprint, now + CLAIM_MS)
            self._store.claims[new.tenant, new.idempotency_key] = claim

    def _claimed(self, new: NewJob) -> Receipt | IdempotencyKeyReused | None:
        """The answer when this id, or this idempotency key, was submitted before."""
        known = self._store.jobs.get(new.id)
        if known is None and new.idempotency_key is not None:
            claim = self._store.claims.get((new.tenant, new.idempotency_key))
            if claim is None:
                return None
            if claim.fingerprint != new.fingerprint:
                return IdempotencyKeyReused()
            known = self._store.jobs.get(claim.job_id)
            if known is None:
                return IdempotencyKeyReused("the job that this idempotency key made is gone")
        if known is None:
            return None
        if known.tenant != new.tenant:
            return IdempotencyKeyReused("this job id is taken")
        return Receipt(known, replayed=True, depth=self._store.line(known.queue).depth)

    def _served(self, new: NewJob, now: int) -> Receipt | None:
        """The answer when another job has come, or is coming, to what this one asks."""
        claim = None if new.cache is None else self._store.claims.get((new.tenant, claim_of(new.cache.key)))
        known = None if claim is None else self._store.jobs.get(claim.job_id)
        if claim is None or known is None or not serves(known, claim.ttl_ms, new, now):
            return None
        joining = None if known.state.terminal else shared(known, new.id)
        if joining is not None:
            known = self._store.apply(known, joining, now)
        if joining is not None or known.state.terminal:
            self._store.count(known, counted_as(known), now)
        self._claim(new, known, now)
        return Receipt(known, depth=self._store.line(known.queue).depth, cached=True)

    def _cancel(
        self, tenant: str, job_id: str, reason: str | None, now: int, word: str | None, for_all: bool
    ) -> Job | JobNotFound:
        job = self._store.owned(tenant, job_id)
        if job is None:
            return JobNotFound()
        change = stopped(job, reason, now, word, for_all)
        if change is None:
            return job
        asked = self._store.apply(job, self._kept(job, change), now)
        if asked.cancel_requested_at_ms is not None and not asked.state.terminal:
            self._store.board.fire((f"worker:{job.session}",))
        return asked

    def _wake(self, tenant: str, job_id: str, now: int) -> Job | JobNotFound:
        job = self._store.owned(tenant, job_id)
        if job is None:
            return JobNotFound()
        change = woken(job, now)
        return job if change is None else self._store.apply(job, change, now)

    def _retry(
        self, tenant: str, job_id: str, new_id: str, now: int
    ) -> Receipt | JobNotFound | JobNotRetryable | Refusal:
        job = self._store.owned(tenant, job_id)
        if job is None:
            return JobNotFound()
        if not job.state.terminal:
            return JobNotRetryable(f"{job_id} is {job.state}; only a job that has ended can be retried")
        return self._submit(renewed(job, new_id), now)

    def _purge(self, tenant: str, job_id: str) -> JobNotFound | JobLive | None:
        job = self._store.owned(tenant, job_id)
        if job is None:
            return JobNotFound()
        if not job.state.terminal:
            return JobLive(f"{job_id} is {job.state}; cancel it first")
        self._store.remove(job)
        return None

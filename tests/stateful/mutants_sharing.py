"""Seeded bugs about results used again and jobs shared."""

from __future__ import annotations

import msgspec
from handover import HandedOver

from ropeway.domain.cache import claim_of
from ropeway.domain.job import Job, NewJob, Receipt
from ropeway.domain.lifecycle import State

__all__ = ["JoinsUncounted", "OldResultsServe", "StoppedJobsServe"]


class StoppedJobsServe(HandedOver):
    """Whoever asks the same is given a share in a job that was asked to stop."""

    def _served(self, new: NewJob, now: int) -> Receipt | None:
        known = self._holder(new)
        if known is not None and known.state is State.running and known.cancel_requested_at_ms is not None:
            return Receipt(known, depth=self._store.line(known.queue).depth, cached=True)
        return super()._served(new, now)

    def _holder(self, new: NewJob) -> Job | None:
        claim = None if new.cache is None else self._store.claims.get((new.tenant, claim_of(new.cache.key)))
        return None if claim is None else self._store.jobs.get(claim.job_id)


class OldResultsServe(HandedOver):
    """A result serves for as long as its own submit said, however young a result is asked for."""

    def _served(self, new: NewJob, now: int) -> Receipt | None:
        claim = None if new.cache is None else self._store.claims.get((new.tenant, claim_of(new.cache.key)))
        if new.cache is not None and claim is not None:
            new = msgspec.structs.replace(new, cache=msgspec.structs.replace(new.cache, ttl_ms=claim.ttl_ms))
        return super()._served(new, now)


class JoinsUncounted(HandedOver):
    """A share is given and not counted, so that the first cancel takes the result from all."""

    def _served(self, new: NewJob, now: int) -> Receipt | None:
        receipt = super()._served(new, now)
        if receipt is not None and receipt.job.joined:
            job = msgspec.structs.replace(receipt.job, joined=0)
            self._store.jobs[job.id] = job
            return msgspec.structs.replace(receipt, job=job)
        return receipt

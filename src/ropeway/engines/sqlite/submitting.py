"""Submit and retry: known ids and keys answered again, limits kept, ranks given, rows written; all set by set."""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ropeway.domain.cache import claim_of, counted_as, serves
from ropeway.domain.change import shared
from ropeway.domain.errors import IdempotencyKeyReused, JobNotFound, JobNotRetryable
from ropeway.domain.job import CLAIM_MS, CacheKey, Job, NewJob, Receipt, renewed
from ropeway.engines.base import Refusal
from ropeway.engines.sqlite.accounts import Used, note_usage
from ropeway.engines.sqlite.arriving import Arrivals
from ropeway.engines.sqlite.lines import Flow, Flows, flow_key
from ropeway.engines.sqlite.moving import Moving, load_with_inputs
from ropeway.engines.sqlite.rows import JOB, with_input
from ropeway.engines.sqlite.statements import encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["Again", "retry", "submit"]

_KNOWN_JOBS = f"""
SELECT json_array((SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs'), json_group_array({JOB}))
FROM json_each(?1) AS wanted CROSS JOIN jobs ON jobs.id = wanted.value CROSS JOIN inputs USING (n)
"""

_KNOWN_CLAIMS = """
SELECT json_group_array(json_array(tenant, claims.key, job_id, fingerprint, ttl_ms, orphan))
FROM jsonb_each(?1) AS wanted CROSS JOIN claims
ON claims.tenant = wanted.value->>0 AND claims.key = wanted.value->>1
"""

_ADD_CLAIMS = """
INSERT OR REPLACE INTO claims(tenant, key, job_id, fingerprint, expires_at_ms, ttl_ms, orphan)
SELECT value->>0, value->>1, value->>2, value->>3, ?2, value->>4, value->>5 FROM jsonb_each(?1)
"""


class Again(NamedTuple):
    """A wish to run a terminal job again, under a new id."""

    tenant: str
    job_id: str
    new_id: str


class _Claim(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An idempotency key's, or a content key's, which has a `ttl_ms`. `orphan`: its job does not know of it."""

    tenant: str
    key: str
    job_id: str
    fingerprint: str = ""
    ttl_ms: int | None = None
    orphan: int = 0


_decode_known = msgspec.json.Decoder(tuple[int, list[Job]]).decode
_decode_claims = msgspec.json.Decoder(list[_Claim]).decode


def submit(tx: Transaction, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
    """`Submission.submit`."""
    batch = _Batch(tx, jobs)
    answers = [batch.answer(job) for job in jobs]
    batch.save()
    return answers


def retry(tx: Transaction, wishes: Sequence[Again]) -> list[Receipt | JobNotFound | JobNotRetryable | Refusal]:
    """`Submission.retry`."""
    if not {wish.job_id for wish in wishes}.isdisjoint(wish.new_id for wish in wishes):
        return [answer for wish in wishes for answer in _retry(tx, [wish])]  # one asks for what another makes
    return _retry(tx, wishes)


def _retry(tx: Transaction, wishes: Sequence[Again]) -> list[Receipt | JobNotFound | JobNotRetryable | Refusal]:
    known = Moving(tx, load_with_inputs(tx, {wish.job_id for wish in wishes}))
    found = [_renewed(known, wish) for wish in wishes]
    receipts = iter(submit(tx, [job for job in found if isinstance(job, NewJob)]))
    return [next(receipts) if isinstance(job, NewJob) else job for job in found]


def _renewed(known: Moving, wish: Again) -> NewJob | JobNotFound | JobNotRetryable:
    job = known.owned(wish.tenant, wish.job_id)
    if job is None:
        return JobNotFound()
    if not job.state.terminal:
        return JobNotRetryable(f"{job.id} is {job.state}; only a job that has ended can be retried")
    return renewed(job, wish.new_id)


class _Batch:
    """One set of submits: what the store knew of it before, and what it adds."""

    def __init__(self, tx: Transaction, jobs: Sequence[NewJob]) -> None:
        self._tx = tx
        self._flows = Flows(tx)
        self._jobs: dict[str, Job] = {}
        self._claims: dict[tuple[str, str], _Claim] = {}
        self._new_claims: dict[tuple[str, str], _Claim] = {}
        self._shared = Moving(tx, ())
        self._used: list[Used] = []
        self._arrivals = Arrivals(tx, self._flows, self._recall(jobs))
        self._flows.learn({flow_key(job) for job in jobs})

    def _recall(self, jobs: Sequence[NewJob]) -> int:
        """Read the jobs and claims that are there under these ids and keys; the last job's number."""
        keys = [(job.tenant, job.idempotency_key) for job in jobs if job.idempotency_key is not None]
        keys += [(job.tenant, claim_of(job.cache.key)) for job in jobs if job.cache is not None]
        if keys:
            claims = _decode_claims(self._tx.value(_KNOWN_CLAIMS, encode_text(keys)))
            self._claims = {(claim.tenant, claim.key): claim for claim in claims}
        ids = {job.id for job in jobs} | {claim.job_id for claim in self._claims.values()}
        last_number, known = _decode_known(self._tx.value(_KNOWN_JOBS, encode_text(list(ids))))
        self._jobs = {job.id: with_input(self._tx, job) for job in known}
        return last_number

    def answer(self, new: NewJob) -> Receipt | Refusal:
        """What becomes of one job, after those before it."""
        if new.id in self._jobs or new.idempotency_key is not None:
            earlier = self._claimed(new)
            if earlier is not None:
                return earlier
        if new.cache is not None:
            served = self._served(new, new.cache)
            if served is not None:
                return served
        flow = self._flows[new.queue, new.priority, new.tenant]
        refusal = flow.refusal(new.max_own)
        if refusal is not None:
            return refusal
        return Receipt(self._add(new, flow), depth=flow.line.depth.waiting)

    def _claimed(self, new: NewJob) -> Receipt | IdempotencyKeyReused | None:
        """The answer when this id, or this idempotency key, was submitted before."""
        known = self._jobs.get(new.id)
        if known is None and new.idempotency_key is not None:
            claim = self._claims.get((new.tenant, new.idempotency_key))
            if claim is None:
                return None
            if claim.fingerprint != new.fingerprint:
                return IdempotencyKeyReused()
            known = self._jobs.get(claim.job_id)
            if known is None:
                return IdempotencyKeyReused("the job that this idempotency key made is gone")
        if known is None:
            return None
        if known.tenant != new.tenant:
            return IdempotencyKeyReused("this job id is taken")
        return Receipt(known, replayed=True, depth=self._flows.depth(known.queue))

    def _served(self, new: NewJob, asked: CacheKey) -> Receipt | None:
        """The answer when another job has come, or is coming, to what this one asks."""
        claim = self._claims.get((new.tenant, claim_of(asked.key)))
        known = None if claim is None else self._jobs.get(claim.job_id)
        if claim is None or known is None or not serves(known, claim.ttl_ms or 0, new, self._tx.now_ms):
            return None
        joining = None if known.state.terminal else shared(known, new.id)
        if joining is not None:
            known = self._jobs[known.id] = self._shared.apply(known, joining)
        if joining is not None or known.state.terminal:
            self._used.append(Used(known.tenant, known.task, False, encode_text({counted_as(known): 1})))
        if new.idempotency_key is not None:
            self._claim(_Claim(new.tenant, new.idempotency_key, known.id, new.fingerprint, orphan=1))
        return Receipt(known, depth=self._flows.depth(known.queue), cached=True)

    def _add(self, new: NewJob, flow: Flow) -> Job:
        self._jobs[new.id] = job = self._arrivals.add(new, flow)
        if new.idempotency_key is not None:
            self._claim(_Claim(new.tenant, new.idempotency_key, new.id, new.fingerprint))
        if new.cache is not None:
            self._claim(_Claim(new.tenant, claim_of(new.cache.key), new.id, ttl_ms=new.cache.ttl_ms))
        return job

    def _claim(self, claim: _Claim) -> None:
        self._claims[claim.tenant, claim.key] = self._new_claims[claim.tenant, claim.key] = claim

    def save(self) -> None:
        """Write the accepted jobs with all that belongs to them, and what became of those that are shared."""
        self._arrivals.save()
        self._tx.run_packed(_ADD_CLAIMS, list(self._new_claims.values()), self._tx.now_ms + CLAIM_MS)
        self._shared.save()
        note_usage(self._tx, self._used)

"""Submit and retry: known ids and keys answered again, limits kept, ranks given, rows written; all set by set."""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from ropeway.domain.errors import IdempotencyKeyReused, JobNotFound, JobNotRetryable
from ropeway.domain.job import CLAIM_MS, Job, NewJob, Receipt, job_of
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Refusal
from ropeway.engines.sqlite.lines import Flow, Flows, flow_key
from ropeway.engines.sqlite.moving import Moving, load_with_inputs
from ropeway.engines.sqlite.rows import JOB, options_text, with_input
from ropeway.engines.sqlite.schema import CODES
from ropeway.engines.sqlite.statements import encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["Again", "retry", "submit"]

_BIG_BYTES = 16 * 1024  # quoted in JSON, a text costs ten times what it costs bound by itself

_KNOWN_JOBS = f"""
SELECT json_array((SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs'), json_group_array({JOB}))
FROM json_each(?1) AS wanted CROSS JOIN jobs ON jobs.id = wanted.value CROSS JOIN inputs USING (n)
"""

_KNOWN_CLAIMS = """
SELECT json_group_array(json_array(claims.tenant, claims.key, claims.job_id, claims.fingerprint))
FROM jsonb_each(?1) AS wanted CROSS JOIN claims
ON claims.tenant = wanted.value->>0 AND claims.key = wanted.value->>1
"""

_ADD_JOBS = f"""
INSERT INTO jobs(
    n, id, tenant, queue, task, options, priority, state, shelf, rank, version, attempt, crashes, runs, epoch, seq,
    started_epoch, created_at_ms, run_at_ms, queue_deadline_ms, retry_of, claim)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6,
    iif(value->>8 IS NULL, {CODES[State.queued]}, {CODES[State.scheduled]}),
    iif(value->>8 IS NULL, {CODES[State.queued]}, {CODES[State.scheduled]}),
    value->>7, 1, 0, 0, 0, 0, 2, 0, ?2, value->>8, value->>9, value->>10, value->>11
FROM jsonb_each(?1)
"""

_ADD_INPUTS = "INSERT INTO inputs(n, input) SELECT value->>0, value->>1 FROM jsonb_each(?1)"
_ADD_BIG_INPUT = "INSERT INTO inputs(n, input) VALUES (?, ?)"

_ADD_CLAIMS = """
INSERT INTO claims(tenant, key, job_id, fingerprint, expires_at_ms)
SELECT value->>0, value->>1, value->>2, value->>3, ?2 FROM jsonb_each(?1)
"""


class Again(NamedTuple):
    """A wish to run a terminal job again, under a new id."""

    tenant: str
    job_id: str
    new_id: str


class _Claim(msgspec.Struct, array_like=True, frozen=True, gc=False):
    tenant: str
    key: str
    job_id: str
    fingerprint: str


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
    return NewJob(
        wish.new_id, job.tenant, job.queue, job.task, job.input, job.priority, options=job.options, retry_of=job.id
    )


class _Batch:
    """One set of submits: what the store knew of it before, and what it adds."""

    def __init__(self, tx: Transaction, jobs: Sequence[NewJob]) -> None:
        self._tx = tx
        self._flows = Flows(tx)
        self._jobs: dict[str, Job] = {}
        self._claims: dict[tuple[str, str], _Claim] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._inputs: list[tuple[int, str]] = []
        self._new_claims: list[_Claim] = []
        self._recall(jobs)
        self._flows.learn({flow_key(job) for job in jobs})

    def _recall(self, jobs: Sequence[NewJob]) -> None:
        """Read the jobs and claims that are there under these ids and keys, and the last job's number."""
        keys = [(job.tenant, job.idempotency_key) for job in jobs if job.idempotency_key is not None]
        if keys:
            claims = _decode_claims(self._tx.value(_KNOWN_CLAIMS, encode_text(keys)))
            self._claims = {(claim.tenant, claim.key): claim for claim in claims}
        ids = {job.id for job in jobs} | {claim.job_id for claim in self._claims.values()}
        self._last_number, known = _decode_known(self._tx.value(_KNOWN_JOBS, encode_text(list(ids))))
        self._jobs = {job.id: with_input(self._tx, job) for job in known}

    def answer(self, new: NewJob) -> Receipt | Refusal:
        """What becomes of one job, after those before it."""
        if new.id in self._jobs or new.idempotency_key is not None:
            earlier = self._claimed(new)
            if earlier is not None:
                return earlier
        flow = self._flows[new.queue, new.priority, new.tenant]
        refusal = flow.refusal()
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

    def _add(self, new: NewJob, flow: Flow) -> Job:
        job = job_of(new, flow.take(new.options.cost), self._tx.now_ms)
        self._jobs[job.id] = job
        self._note(job, flow, new)
        return job

    def _note(self, job: Job, flow: Flow, new: NewJob) -> None:
        """Take down the rows that the job needs."""
        self._last_number += 1
        n = self._last_number
        key = new.idempotency_key
        deadline_ms = job.queue_deadline_ms
        text = options_text(job.options)
        self._rows.append(
            (n, job.id, job.tenant, job.queue, job.task, text, job.priority, job.rank, job.run_at_ms, deadline_ms)
            + ((job.retry_of, key) if key is not None or job.retry_of is not None else ())
        )
        self._inputs.append((n, job.input))
        if job.run_at_ms is not None:
            flow.scheduled += 1
        if key is not None:
            self._claims[job.tenant, key] = claim = _Claim(job.tenant, key, job.id, new.fingerprint)
            self._new_claims.append(claim)

    def save(self) -> None:
        """Write the accepted jobs with all that belongs to them."""
        if not self._rows:
            return
        tx = self._tx
        tx.run_packed(_ADD_JOBS, self._rows, tx.now_ms)
        tx.run_packed(_ADD_INPUTS, [row for row in self._inputs if len(row[1]) <= _BIG_BYTES])
        for row in self._inputs:
            if len(row[1]) > _BIG_BYTES:
                tx.run(_ADD_BIG_INPUT, *row)
        tx.run_packed(_ADD_CLAIMS, self._new_claims, tx.now_ms + CLAIM_MS)
        self._flows.save()
        self._tell()

    def _tell(self) -> None:
        topics = self._tx.topics
        topics.lifecycle()
        topics.jobs.update(row[1] for row in self._rows)
        for flow in self._flows.taken():
            if flow.taken > flow.scheduled:
                topics.queue(flow.line.name)
        if any(row[8] is not None or row[9] is not None for row in self._rows):
            topics.upkeep()

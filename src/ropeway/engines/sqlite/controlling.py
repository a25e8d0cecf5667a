"""Cancel, purge, the queues' and the limits' policies; and the one way a job leaves the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ropeway.domain.cache import claim_of
from ropeway.domain.change import stopped, woken
from ropeway.domain.errors import JobLive, JobNotFound
from ropeway.domain.job import Job
from ropeway.domain.limit import LimitPolicy, LimitState
from ropeway.domain.queue import QueueChange, QueuePolicy
from ropeway.engines.sqlite.keeping import kept
from ropeway.engines.sqlite.moving import Moving, load_with_inputs
from ropeway.engines.sqlite.schema import STATES
from ropeway.engines.sqlite.statements import encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["Cancel", "LimitChange", "Purge", "Wake", "cancel", "purge", "remove", "set_limits", "set_queue", "wake"]

_DOOMED = """
SELECT json_group_array(json_array(jobs.n, jobs.id, tenant, state, claim, cache))
FROM json_each(?1) AS wanted CROSS JOIN jobs ON jobs.id = wanted.value
"""

_REMOVE = (
    "DELETE FROM jobs WHERE n IN (SELECT value FROM json_each(?1))",
    "DELETE FROM inputs WHERE n IN (SELECT value FROM json_each(?1))",
    "DELETE FROM events WHERE n IN (SELECT value FROM json_each(?1))",
)

_ORPHAN = """
UPDATE claims SET orphan = 1 FROM (SELECT value->>0 AS tenant, value->>1 AS key FROM jsonb_each(?1)) AS made
WHERE claims.tenant = made.tenant AND claims.key = made.key
"""

_FREE = """
DELETE FROM claims WHERE (tenant, key, job_id) IN (SELECT value->>0, value->>1, value->>2 FROM jsonb_each(?1))
"""

_POLICIES = """
SELECT json_group_array(policy) FROM json_each(?1) AS wanted CROSS JOIN queues ON queues.queue = wanted.value
"""

_SET_POLICIES = """
INSERT INTO queues(queue, policy, paused, max_running)
SELECT value->>0, value->>1, value->>2, value->>3 FROM jsonb_each(?1) WHERE true
ON CONFLICT DO UPDATE SET policy = excluded.policy, paused = excluded.paused, max_running = excluded.max_running
"""


class Cancel(NamedTuple):
    """A wish to cancel a job."""

    tenant: str
    job_id: str
    reason: str | None
    word: str | None = None
    for_all: bool = False


class Wake(NamedTuple):
    """A wish to let a waiting job go on."""

    tenant: str
    job_id: str


class Purge(NamedTuple):
    """A wish to delete a terminal job."""

    tenant: str
    job_id: str


class LimitChange(NamedTuple):
    """What counts for a limit's key from now on."""

    key: str
    policy: LimitPolicy | None


class _Doomed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    n: int
    id: str
    tenant: str
    state: int
    claim: str | None
    cache: str | None


_decode_doomed = msgspec.json.Decoder(list[_Doomed]).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode
_decode_policy = msgspec.json.Decoder(QueuePolicy).decode


def cancel(tx: Transaction, wishes: Sequence[Cancel]) -> list[Job | JobNotFound]:
    """`Submission.cancel`."""
    moving = Moving(tx, load_with_inputs(tx, {wish.job_id for wish in wishes}))
    answers = [_cancel(tx, moving, wish) for wish in wishes]
    moving.save()
    tx.settle()
    return answers


def _cancel(tx: Transaction, moving: Moving, wish: Cancel) -> Job | JobNotFound:
    job = moving.owned(wish.tenant, wish.job_id)
    if job is None:
        return JobNotFound()
    change = stopped(job, wish.reason, tx.now_ms, wish.word, wish.for_all)
    if change is None:
        return job
    asked = moving.apply(job, kept(tx, job, change))
    if asked.cancel_requested_at_ms is not None and not asked.state.terminal:
        tx.topics.worker(job.session)
    return asked


def wake(tx: Transaction, wishes: Sequence[Wake]) -> list[Job | JobNotFound]:
    """`Submission.wake`."""
    moving = Moving(tx, load_with_inputs(tx, {wish.job_id for wish in wishes}))
    answers = [_wake(tx, moving, wish) for wish in wishes]
    moving.save()
    tx.settle()
    return answers


def _wake(tx: Transaction, moving: Moving, wish: Wake) -> Job | JobNotFound:
    job = moving.owned(wish.tenant, wish.job_id)
    if job is None:
        return JobNotFound()
    change = woken(job, tx.now_ms)
    return job if change is None else moving.apply(job, change)


def purge(tx: Transaction, wishes: Sequence[Purge]) -> list[JobNotFound | JobLive | None]:
    """`Submission.purge`."""
    doomed = _find_doomed(tx, [wish.job_id for wish in wishes])
    answers = [_purge(doomed, wish) for wish in wishes]
    remove(tx, [wish.job_id for wish, answer in zip(wishes, answers, strict=True) if answer is None])
    return answers


def _purge(doomed: dict[str, _Doomed], wish: Purge) -> JobNotFound | JobLive | None:
    job = doomed.get(wish.job_id)
    if job is None or job.tenant != wish.tenant:
        return JobNotFound()
    if not STATES[job.state].terminal:
        return JobLive(f"{job.id} is {STATES[job.state]}; cancel it first")
    del doomed[job.id]  # the next wish for it finds nothing
    return None


def remove(tx: Transaction, job_ids: Sequence[str]) -> None:
    """Forget terminal jobs with their inputs, events and content keys. Their idempotency claims stay, without a job; so
    do the counts of them."""
    if not job_ids:
        return
    doomed = _find_doomed(tx, job_ids).values()
    numbers = encode_text([job.n for job in doomed])
    for statement in _REMOVE:
        tx.run(statement, numbers)
    tx.run_packed(_ORPHAN, [(job.tenant, job.claim) for job in doomed if job.claim is not None])
    tx.run_packed(_FREE, [(job.tenant, claim_of(job.cache), job.id) for job in doomed if job.cache is not None])
    gone = [job.id for job in doomed]
    tx.topics.jobs.update(gone)
    tx.topics.ends.update(gone)


def _find_doomed(tx: Transaction, job_ids: Sequence[str]) -> dict[str, _Doomed]:
    return {job.id: job for job in _decode_doomed(tx.value(_DOOMED, encode_text(job_ids)))}


def set_queue(tx: Transaction, changes: Sequence[QueueChange]) -> list[QueuePolicy]:
    """`Submission.set_queue`: each policy as it stands after all the changes."""
    known = _decode_texts(tx.value(_POLICIES, encode_text([change.queue for change in changes])))
    policies = {policy.queue: policy for policy in map(_decode_policy, known)}
    for change in changes:
        policies[change.queue] = change.applied_to(policies.get(change.queue) or QueuePolicy(change.queue))
        tx.topics.queue(change.queue)
    rows = [(policy.queue, encode_text(policy), policy.paused, policy.max_running) for policy in policies.values()]
    tx.run_packed(_SET_POLICIES, rows)
    return [policies[change.queue] for change in changes]


def set_limits(tx: Transaction, changes: Sequence[LimitChange]) -> list[LimitState]:
    """`Submission.set_limits`."""
    return [_set_limit(tx, change) for change in changes]


def _set_limit(tx: Transaction, change: LimitChange) -> LimitState:
    tx.limits.set(change.key, change.policy)
    return tx.limits.told(change.key)

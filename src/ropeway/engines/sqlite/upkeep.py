"""What one worker at a time does for all: promote, prune, elect. (`rescue` stands with the sessions.)"""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ropeway.domain.change import promoted
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Promotion
from ropeway.engines.sqlite.accounts import forget_usage
from ropeway.engines.sqlite.controlling import remove
from ropeway.engines.sqlite.leasing import fail_late
from ropeway.engines.sqlite.moving import Moving
from ropeway.engines.sqlite.recording import forget_past
from ropeway.engines.sqlite.rows import JOB_BARE, decode_jobs
from ropeway.engines.sqlite.schema import CODES
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["Elect", "elect", "promote", "prune"]

_DUE = f"""
SELECT json_group_array({JOB_BARE})
FROM (SELECT * FROM (SELECT n, run_at_ms AS at_ms FROM jobs
                     WHERE state = {CODES[State.scheduled]} AND run_at_ms <= ?1 ORDER BY run_at_ms LIMIT ?2)
      UNION ALL
      SELECT * FROM (SELECT n, queue_deadline_ms FROM jobs
                     WHERE state = {CODES[State.queued]} AND queue_deadline_ms <= ?1
                     ORDER BY queue_deadline_ms LIMIT ?2)
      ORDER BY at_ms LIMIT ?2) AS due CROSS JOIN jobs ON jobs.n = due.n
"""

_NEXT = f"""
SELECT json_array(
    (SELECT min(run_at_ms) FROM jobs WHERE state = {CODES[State.scheduled]}),
    (SELECT min(queue_deadline_ms) FROM jobs
     WHERE state = {CODES[State.queued]} AND queue_deadline_ms IS NOT NULL),
    (SELECT min(due_ms) FROM limits WHERE due_ms IS NOT NULL))
"""

_KEYS_AT_ONCE = 1000

_EXPIRING = """
SELECT json_group_array(id) FROM (SELECT id FROM jobs WHERE expires_at_ms <= ?1 ORDER BY expires_at_ms LIMIT ?2)
"""

_FORGET_CLAIMS = """
DELETE FROM claims WHERE (tenant, key) IN (
    SELECT tenant, key FROM claims WHERE orphan = 1 AND expires_at_ms <= ?1
    AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = claims.job_id) ORDER BY expires_at_ms LIMIT ?2)
"""

# A tenant without a tag starts at virtual time all the same.
_FORGET_IDLE_FLOWS = """
DELETE FROM flows WHERE last_finish <=
    (SELECT virtual_time FROM bands WHERE bands.queue = flows.queue AND bands.band = flows.band)
"""

_ELECT = """
INSERT INTO duties(duty, holder, until_ms) VALUES (?1, ?2, ?3)
ON CONFLICT DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms
WHERE duties.holder = excluded.holder OR duties.until_ms <= ?4
"""


class _Times(NamedTuple):
    """When the next scheduled job, the next queue deadline and the next limit's turn is."""

    run_ms: int | None
    deadline_ms: int | None
    limits_ms: int | None


_decode_texts = msgspec.json.Decoder(list[str]).decode
_decode_times = msgspec.json.Decoder(_Times).decode


class Elect(NamedTuple):
    """A wish to hold a duty."""

    duty: str
    holder: str
    ttl_ms: int


def promote(tx: Transaction, limits: Sequence[int]) -> list[Promotion]:
    """`Upkeep.promote`."""
    return [_promote(tx, limit) for limit in limits]


def _promote(tx: Transaction, limit: int) -> Promotion:
    moved = _move_due(tx, limit)
    tx.settle()
    times = _next_times(tx)
    if times.limits_ms is not None and times.limits_ms <= tx.now_ms:
        moved += tx.limits.call_due(_KEYS_AT_ONCE)
        times = _next_times(tx)
    return Promotion(moved, min((at_ms for at_ms in times if at_ms is not None), default=None))


def _next_times(tx: Transaction) -> _Times:
    tx.flush()
    return _decode_times(tx.value(_NEXT))


def _move_due(tx: Transaction, limit: int) -> int:
    moved = 0
    while moved < limit and (due := decode_jobs(tx.value(_DUE, tx.now_ms, limit - moved))):
        _queue(tx, [job for job in due if job.state is State.scheduled])
        fail_late(tx, [job for job in due if job.state is State.queued])
        moved += len(due)
    return moved


def _queue(tx: Transaction, jobs: Sequence[Job]) -> None:
    moving = Moving(tx, jobs)
    for job in jobs:
        moving.apply(job, promoted(job))
    moving.save()


def prune(tx: Transaction, limits: Sequence[int]) -> list[int]:
    """`Upkeep.prune`."""
    return [_prune(tx, limit) for limit in limits]


def _prune(tx: Transaction, limit: int) -> int:
    expired = _decode_texts(tx.value(_EXPIRING, tx.now_ms, limit))
    remove(tx, expired)
    tx.run(_FORGET_CLAIMS, tx.now_ms, limit)
    forget_past(tx, limit)
    tx.limits.forget_idle(limit)
    tx.flush()  # virtual time is read next
    tx.run(_FORGET_IDLE_FLOWS)
    forget_usage(tx)
    return len(expired)


def elect(tx: Transaction, wishes: Sequence[Elect]) -> list[bool]:
    """`Upkeep.elect`."""
    return [tx.run(_ELECT, wish.duty, wish.holder, tx.now_ms + wish.ttl_ms, tx.now_ms) == 1 for wish in wishes]

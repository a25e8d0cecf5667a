"""Lease: the best-ranked queued jobs become a session's running ones. And what providers tell of limits."""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ropeway.domain.change import overdue
from ropeway.domain.ids import LEASE_TOKEN_BYTES
from ropeway.domain.job import Job
from ropeway.domain.lease import Assignment, Lease, LeaseRequest, next_epoch
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import LimitSignal
from ropeway.domain.log import opening_count
from ropeway.domain.rank import BAND_WIDTH
from ropeway.engines.sqlite.moving import Moving, load
from ropeway.engines.sqlite.rows import EMPTY_INPUT, input_of, options_from
from ropeway.engines.sqlite.schema import CODES
from ropeway.engines.sqlite.transaction import Transaction
from ropeway.engines.sqlite.turns import Row, Turns

__all__ = ["fail_late", "lease", "signal"]

_MAY_LEASE = "SELECT EXISTS (SELECT 1 FROM sessions WHERE session = ? AND expires_at_ms > ?)"

_ASSIGN = f"""
UPDATE jobs SET state = {CODES[State.running]}, version = version + 1, attempt = attempt + 1, runs = runs + 1,
    epoch = given.epoch, seq = given.seq, started_epoch = given.epoch, started_at_ms = ?2, queue_deadline_ms = NULL,
    run_at_ms = NULL, worker = ?3, session = ?4, token = given.token, last_outcome = NULL, progress = NULL
FROM (SELECT value->>0 AS number, value->>1 AS token, value->>2 AS epoch, value->>3 AS seq
      FROM jsonb_each(?1)) AS given
WHERE n = given.number
"""


def lease(tx: Transaction, requests: Sequence[LeaseRequest]) -> list[list[Assignment]]:
    """`Execution.lease`, for each request after those before it."""
    return [_lease(tx, request) for request in requests]


def _lease(tx: Transaction, request: LeaseRequest) -> list[Assignment]:
    if not tx.value(_MAY_LEASE, request.session, tx.now_ms):
        return []
    leased: list[Assignment] = []
    for queue in request.queues:
        if len(leased) < request.limit:
            leased += _from_queue(tx, queue, request, request.limit - len(leased))
    return leased


def _from_queue(tx: Transaction, queue: str, request: LeaseRequest, limit: int) -> list[Assignment]:
    """At most `limit` jobs of one queue. Those met past their queue deadline fail, and others take their place."""
    leased: list[Assignment] = []
    turns = Turns(tx, queue)
    more = True
    while more and len(leased) < limit:
        rows, late, more = turns.take(limit - len(leased))
        if late:
            fail_late(tx, load(tx, late))
        leased += _assign(tx, queue, rows, request)
    return leased


def signal(tx: Transaction, signals: Sequence[LimitSignal]) -> list[None]:
    """`Execution.signal`."""
    tx.limits.learn(told.limit.key for told in signals)
    for told in signals:
        tx.limits.signal(told)
    return [None] * len(signals)


def fail_late(tx: Transaction, jobs: Sequence[Job]) -> None:
    """Fail queued jobs that waited longer than they may."""
    moving = Moving(tx, jobs)
    for job in jobs:
        moving.apply(job, overdue(job, tx.now_ms))
    moving.save()


def _assign(tx: Transaction, queue: str, rows: list[Row], request: LeaseRequest) -> list[Assignment]:
    if not rows:
        return []
    assignments = [_assignment(tx, queue, row, token) for row, token in zip(rows, _tokens(tx, len(rows)), strict=True)]
    given = [
        (row.n, assignment.lease.token, assignment.lease.epoch, assignment.next_seq)
        for row, assignment in zip(rows, assignments, strict=True)
    ]
    tx.run_packed(_ASSIGN, given, tx.now_ms, request.worker, request.session)
    for tenant, jobs in Counter([row.tenant for row in rows]).items():
        tx.ledger.count(queue, tenant, State.queued, State.running, jobs)
    for rank in {row.rank // BAND_WIDTH: row.rank for row in rows}.values():  # the last of each band: ranks rise
        tx.ledger.advance(queue, rank)
    tx.topics.jobs.update([row.id for row in rows])
    tx.topics.lifecycle()
    return assignments


def _assignment(tx: Transaction, queue: str, row: Row, token: str) -> Assignment:
    return Assignment(
        lease=Lease(row.id, next_epoch(row.epoch, tx.now_ms), token),
        tenant=row.tenant,
        queue=queue,
        task=row.task,
        input=row.input if row.input != EMPTY_INPUT else input_of(tx, row.id),
        attempt=row.attempt + 1,
        crashes=row.crashes,
        next_seq=opening_count(row.runs + 1),
        created_at_ms=row.created_at_ms,
        started_at_ms=tx.now_ms,
        options=options_from(row.options),
    )


def _tokens(tx: Transaction, count: int) -> list[str]:
    """As many lease tokens, from one read of randomness: each read gives the interpreter lock away."""
    digits = tx.random(LEASE_TOKEN_BYTES * count).hex()
    width = 2 * LEASE_TOKEN_BYTES
    return [digits[start : start + width] for start in range(0, len(digits), width)]

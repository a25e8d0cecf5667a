"""Commit: attempts end. Most end their job, and go through one statement; the others are moved one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from ropeway.domain.change import ENDS, committed, repeated
from ropeway.domain.errors import LeaseLost
from ropeway.domain.job import expiry_ms
from ropeway.domain.lease import Commit, Outcome
from ropeway.domain.lifecycle import State
from ropeway.engines.sqlite.accounts import Used, note_usage
from ropeway.engines.sqlite.moving import Moving, load
from ropeway.engines.sqlite.rows import options_from
from ropeway.engines.sqlite.schema import CODES
from ropeway.engines.sqlite.statements import encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["commit"]

_HELD = """
SELECT json_array(json_group_array(json_array(
    jobs.n, jobs.id, state, token, last_outcome, cancel_requested_at_ms IS NOT NULL, tenant, queue, task, options)),
    json((SELECT json_group_array(queue) FROM queues WHERE max_running IS NOT NULL)))
FROM json_each(?1) AS wanted CROSS JOIN jobs ON jobs.id = wanted.value
"""

_END = """
UPDATE jobs SET state = ended.state, shelf = ended.state, version = version + 1, seq = seq + 1,
    last_outcome = ended.kind, output = ended.output, error = ended.error, usage = coalesce(ended.usage, jobs.usage),
    finished_at_ms = ?2, expires_at_ms = ended.expires_at_ms, run_at_ms = NULL, session = NULL
FROM (SELECT value->>0 AS number, value->>1 AS state, value->>2 AS kind, value->>3 AS output, value->>4 AS error,
             value->>5 AS usage, value->>6 AS expires_at_ms
      FROM jsonb_each(?1)) AS ended
WHERE n = ended.number
"""


class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    n: int
    id: str
    state: int
    token: str | None
    last_outcome: str | None
    cancel_requested: bool
    tenant: str
    queue: str
    task: str
    options: str | None

    @property
    def is_plain(self) -> bool:
        """Whether nothing but its row and the counts changes with its end."""
        if self.options is None:
            return True
        options = options_from(self.options)
        return options.webhook is None and not options.limits and options.cost_measure is None


_Held = tuple[list[_Row], list[str]]
"""Jobs, and the queues of which only so many may run at once."""

_decode = msgspec.json.Decoder(_Held, strict=False).decode  # SQLite writes a truth as 0 or 1


def commit(tx: Transaction, batch: Sequence[Commit]) -> list[State | LeaseLost]:
    """`Execution.commit`."""
    ids = [commit.lease.job_id for commit in batch]
    if len(set(ids)) != len(ids):
        return _move(tx, batch)  # one commit depends on another's outcome
    held, narrow = _decode(tx.value(_HELD, encode_text(ids)))
    rows = {row.id: row for row in held}
    ending = [_end_of(rows.get(commit.lease.job_id), commit) for commit in batch]
    ended = [(rows[commit.lease.job_id], end, commit.outcome) for commit, end in zip(batch, ending, strict=True) if end]
    _end(tx, ended, narrow)
    others = iter(_move(tx, [commit for commit, end in zip(batch, ending, strict=True) if end is None]))
    return [next(others) if end is None else end for end in ending]


def _end_of(row: _Row | None, commit: Commit) -> State | None:
    """The state that a held lease's commit plainly ends its job in; None for every other case."""
    if row is None or row.state != CODES[State.running] or row.token != commit.lease.token or not row.is_plain:
        return None
    return State.cancelled if row.cancel_requested else ENDS.get(commit.outcome.kind)


def _end(tx: Transaction, endings: Sequence[tuple[_Row, State, Outcome]], narrow: Sequence[str]) -> None:
    if not endings:
        return
    tx.run_packed(_END, [_values(tx.now_ms, *ending) for ending in endings], tx.now_ms)
    for (queue, tenant, state), jobs in Counter([(row.queue, row.tenant, end) for row, end, _ in endings]).items():
        tx.ledger.count(queue, tenant, State.running, state, jobs)
        if queue in narrow:
            tx.topics.queue(queue)
    ended = [row.id for row, _, _ in endings]
    tx.topics.jobs.update(ended)
    tx.topics.ends.update(ended)
    tx.topics.lifecycle()
    note_usage(tx, [Used(row.tenant, row.task, True, told.usage) for row, _, told in endings if told.usage is not None])


def _values(now_ms: int, row: _Row, state: State, outcome: Outcome) -> tuple[Any, ...]:
    expires_at_ms = expiry_ms(options_from(row.options), state, now_ms)
    error = None if row.cancel_requested else outcome.error
    return row.n, CODES[state], outcome.kind, outcome.output, error, outcome.usage, expires_at_ms


def _move(tx: Transaction, batch: Sequence[Commit]) -> list[State | LeaseLost]:
    """Commits of every kind, each after those before it."""
    if not batch:
        return []
    moving = Moving(tx, load(tx, {commit.lease.job_id for commit in batch}))
    answers = [_commit(tx, moving, commit) for commit in batch]
    moving.save()
    tx.settle()
    return answers


def _commit(tx: Transaction, moving: Moving, each: Commit) -> State | LeaseLost:
    job = moving.jobs.get(each.lease.job_id)
    if job is None or job.state is not State.running or job.token != each.lease.token:
        return repeated(job, each.lease, each.outcome)
    return moving.apply(job, committed(job, each.outcome, tx.now_ms)).state

"""The questions, each one statement (or a few) on a connection that only reads: no transaction outlives its call."""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from ropeway.domain.event import Cursor
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import LimitPolicy, LimitState
from ropeway.domain.log import EventPage, LogQuery, page
from ropeway.domain.queue import QueuePolicy, QueueStats
from ropeway.domain.rank import Priority, goes_before, rank_of
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.sqlite.rows import JOB, READY, EventRow, decode_jobs, events_of, job_up_to, with_input
from ropeway.engines.sqlite.schema import CODES, STATE_COLUMNS
from ropeway.engines.sqlite.statements import Statements, encode_text

__all__ = ["get", "limits", "position", "read", "read_many", "stats", "tasks", "whole_jobs", "workers"]

_GET = f"""
SELECT json_group_array({JOB})
FROM json_each(?1) AS wanted CROSS JOIN jobs ON jobs.id = wanted.value CROSS JOIN inputs USING (n)
WHERE tenant = ?2
"""

# The row that holds the first wanted event may begin before it, or hold none (hence one row more). A log is contiguous
# in each epoch, so that no row beyond `limit` numbers is wanted.
_EVENTS = """
SELECT json_group_array(json_array(epoch, seq, attempt, at_ms, json(entries)))
FROM (SELECT * FROM events
      WHERE events.n = jobs.n
      AND (epoch, seq) >= ({epoch}, coalesce(
          (SELECT max(seq) FROM events WHERE events.n = jobs.n AND epoch = {epoch} AND seq <= {seq} + 1), 0))
      AND seq <= iif(epoch = {epoch}, {seq}, 0) + {limit}
      ORDER BY epoch, seq LIMIT {most} + 1)
"""

_ONE = {"epoch": "?3", "seq": "?4", "limit": "?5"}
_EACH = {"epoch": "wanted.epoch", "seq": "wanted.seq", "limit": "wanted.most"}

_READ = f"""
SELECT json_array(0, {job_up_to(**_ONE)}, json(({_EVENTS.format(**_ONE, most="?5")})))
FROM jobs WHERE id = ?2 AND tenant = ?1
"""

# ?1: of each log its id, tenant, epoch, seq and limit; ?2: the largest limit (a LIMIT may not come from a row). For one
# log this costs twice as much as the statement for one, for eight half as much.
_READ_MANY = f"""
WITH wanted(place, id, tenant, epoch, seq, most) AS MATERIALIZED (
    SELECT key, value->>0, value->>1, value->>2, value->>3, value->>4 FROM jsonb_each(?1))
SELECT json_group_array(json_array(wanted.place, {job_up_to(**_EACH)}, json(({_EVENTS.format(**_EACH, most="?2")}))))
FROM wanted CROSS JOIN jobs ON jobs.id = wanted.id AND jobs.tenant = wanted.tenant
"""

_PLACE = f"""
SELECT json_array(queue, rank, n, priority, parked) FROM jobs
WHERE id = ?2 AND tenant = ?1 AND state = {CODES[State.queued]}
"""

# ?4: where the job's band begins. The higher ones end there.
_AHEAD = f"""
SELECT json_array(
    (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE queue = ?1 AND {READY} AND rank >= ?4 AND (rank, n) < (?2, ?3)
                           LIMIT ?6)),
    (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE queue = ?1 AND {READY} AND rank < ?4 LIMIT ?6)),
    coalesce((SELECT passed FROM bands WHERE bands.queue = ?1 AND bands.band = ?5), 0))
"""

_PARKED_AHEAD = "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE parked = ?1 AND (rank, n) < (?2, ?3) LIMIT ?4)"

_COUNTS = ", ".join(f"coalesce({name}, 0)" for name in STATE_COLUMNS)

_STATS = f"""
SELECT json_group_array(json_array(queues.queue, policy, {_COUNTS}, (
    SELECT min((SELECT created_at_ms FROM jobs
                WHERE jobs.tenant = owner.tenant AND jobs.queue = queues.queue AND shelf = {CODES[State.queued]}
                AND state = {CODES[State.queued]} ORDER BY n LIMIT 1))
    FROM counts AS owner WHERE owner.queue = queues.queue AND owner.queued > 0
    AND owner.tenant <> '' AND (?1 = '' OR owner.tenant = ?1))) ORDER BY queues.queue)
FROM queues LEFT JOIN counts ON counts.queue = queues.queue AND counts.tenant = ?1
"""

_LIMITS = """
SELECT json_group_array(json_array(key, running, level, at_ms, paused_until_ms, json(policy),
    (SELECT count(*) FROM jobs WHERE jobs.parked = limits.key)) ORDER BY key)
FROM limits
"""

_TASKS = "SELECT json_group_array(json(card) ORDER BY name) FROM tasks"

_WORKERS = f"""
SELECT json_group_array(json_array(json(card), expires_at_ms, (
    SELECT count(*) FROM jobs WHERE jobs.session = sessions.session AND jobs.state = {CODES[State.running]}
)) ORDER BY number) FROM sessions
"""


_FAR = 2**62


class _PlaceRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    queue: str
    rank: float
    n: int
    priority: Priority
    parked: str | None


class _LogRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A log as read: its place among those wanted, its job's row, its events' rows."""

    place: int
    job: Job
    rows: list[EventRow]


class _QueueRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    queue: str
    policy: str
    scheduled: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    oldest_queued_at_ms: int | None


_decode_read = msgspec.json.Decoder(_LogRow).decode
_decode_reads = msgspec.json.Decoder(list[_LogRow]).decode
_decode_place = msgspec.json.Decoder(_PlaceRow).decode
_decode_ahead = msgspec.json.Decoder(tuple[int, int, int]).decode
_decode_limits = msgspec.json.Decoder(list[tuple[str, int, float | None, int, int, LimitPolicy | None, int]]).decode
_decode_policy = msgspec.json.Decoder(QueuePolicy).decode
_decode_queues = msgspec.json.Decoder(list[_QueueRow]).decode
_decode_tasks = msgspec.json.Decoder(list[TaskCard]).decode
_decode_workers = msgspec.json.Decoder(list[tuple[WorkerCard, int, int]]).decode


def get(db: Statements, tenant: str, job_ids: Sequence[str]) -> list[Job | None]:
    """`Reading.get`."""
    found = {job.id: job for job in whole_jobs(db, _GET, job_ids, tenant)}
    return [found.get(job_id) for job_id in job_ids]


def whole_jobs(db: Statements, sql: str, keys: Sequence[str] | Sequence[int], *bindings: Any) -> list[Job]:
    """The jobs that a statement over `json_each(?1)` finds for these keys, with inputs of any size."""
    try:
        jobs = decode_jobs(db.value(sql, encode_text(keys), *bindings))
    except apsw.TooBigError:
        if len(keys) < 2:
            raise
        middle = len(keys) // 2
        return whole_jobs(db, sql, keys[:middle], *bindings) + whole_jobs(db, sql, keys[middle:], *bindings)
    return [with_input(db, job) for job in jobs]


def read(db: Statements, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
    """`Reading.read`: the row and its events in one statement, so that both are of one moment."""
    found: str | None = db.value(_READ, tenant, job_id, min(after.epoch, _FAR), min(after.seq, _FAR), limit)
    return None if found is None else _page(_decode_read(found), after, limit)


def read_many(db: Statements, queries: Sequence[LogQuery]) -> list[EventPage | None]:
    """`Reading.read_many`: one statement for all."""
    pages: list[EventPage | None] = [None] * len(queries)
    wanted = [(job_id, tenant, min(after.epoch, _FAR), min(after.seq, _FAR), n) for tenant, job_id, after, n in queries]
    most = max((query.limit for query in queries), default=0)
    for found in _decode_reads(db.value(_READ_MANY, encode_text(wanted), most)):
        query = queries[found.place]
        pages[found.place] = _page(found, query.after, query.limit)
    return pages


def _page(found: _LogRow, after: Cursor, limit: int) -> EventPage:
    stored = [event for event in events_of(found.job.id, found.rows) if event.cursor > after]
    return page(found.job, stored[:limit], after, limit)


def position(db: Statements, tenant: str, job_id: str, limit: int) -> int | None:
    """`Reading.position`. Costs as much as there are jobs ahead, up to `limit`."""
    found: str | None = db.value(_PLACE, tenant, job_id)
    if found is None:
        return None
    place = _decode_place(found)
    here = (place.rank, place.n)
    if place.parked is not None:
        ahead: int = db.value(_PARKED_AHEAD, place.parked, *here, limit + 1)
    else:
        begins = rank_of(place.priority, 0.0)
        counts = _decode_ahead(db.value(_AHEAD, place.queue, *here, begins, place.priority, limit + 1))
        ahead = goes_before(*counts)
    return None if ahead > limit else ahead


def stats(db: Statements, tenant: str | None) -> list[QueueStats]:
    """`Reading.stats`."""
    return [
        QueueStats(
            row.queue,
            oldest_queued_at_ms=row.oldest_queued_at_ms,
            policy=_decode_policy(row.policy),
            **{name: getattr(row, name) for name in STATE_COLUMNS},
        )
        for row in _decode_queues(db.value(_STATS, tenant or ""))
    ]


def limits(db: Statements) -> list[LimitState]:
    """`Reading.limits`. Costs as much as there are keys and parked jobs."""
    return [LimitState(*row) for row in _decode_limits(db.value(_LIMITS))]


def tasks(db: Statements) -> list[TaskCard]:
    """`Reading.tasks`."""
    return _decode_tasks(db.value(_TASKS))


def workers(db: Statements) -> list[WorkerCard]:
    """`Reading.workers`."""
    return [
        msgspec.structs.replace(card, expires_at_ms=expires_at_ms, running=running)
        for card, expires_at_ms, running in _decode_workers(db.value(_WORKERS))
    ]

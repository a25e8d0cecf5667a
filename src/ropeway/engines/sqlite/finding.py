"""`find`: a tenant's jobs, newest first, merged from the shelves that may hold some."""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

import heapq
from collections.abc import Iterator

import msgspec

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.job import JobQuery
from ropeway.domain.lifecycle import State
from ropeway.engines.base import JobPage
from ropeway.engines.sqlite.reading import whole_jobs
from ropeway.engines.sqlite.rows import JOB
from ropeway.engines.sqlite.schema import CODES
from ropeway.engines.sqlite.statements import Statements

__all__ = ["find"]

_QUEUES = "SELECT json_group_array(queue) FROM counts WHERE tenant = ?1 AND (?2 IS NULL OR queue = ?2)"

_JOBS = f"""
SELECT json_group_array({JOB})
FROM json_each(?1) AS wanted CROSS JOIN jobs ON jobs.n = wanted.value CROSS JOIN inputs USING (n)
"""

_FITS = """
tenant = ?1 AND queue = ?2 AND (?3 IS NULL OR n < ?3) AND (?4 IS NULL OR task = ?4)
AND (?5 IS NULL OR EXISTS (SELECT 1 FROM json_each(options, '$.tags') WHERE value = ?5))
ORDER BY n DESC LIMIT ?6
"""

_SHELF = f"SELECT json_group_array(n) FROM (SELECT n FROM jobs WHERE shelf = ?7 AND {_FITS})"
_QUEUED = f"""
SELECT json_group_array(n) FROM (
    SELECT n FROM jobs WHERE shelf = {CODES[State.queued]} AND state = {CODES[State.queued]} AND {_FITS})
"""
_RUNNING = f"""
SELECT json_group_array(n) FROM (
    SELECT n FROM jobs INDEXED BY running WHERE state = {CODES[State.running]} AND {_FITS})
"""

_LIVE = frozenset({State.queued, State.running})
"""They share a shelf (see `schema`)."""

_decode_numbers = msgspec.json.Decoder(list[int]).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode


def find(db: Statements, query: JobQuery) -> JobPage:
    """`Reading.find`. Filters by task or tag look at every job that passes the other filters."""
    before = _parse(query.before)
    db.run("BEGIN")  # several statements, one moment: a job that changes its shelf is met once
    try:
        shelves = [
            _decode_numbers(db.value(sql, query.tenant, queue, before, query.task, query.tag, query.limit + 1, *shelf))
            for queue in _decode_texts(db.value(_QUEUES, query.tenant, query.queue))
            for sql, shelf in _wanted(query)
        ]
        found = heapq.nlargest(query.limit + 1, (n for shelf in shelves for n in shelf))
        jobs = whole_jobs(db, _JOBS, found[: query.limit])
    finally:
        db.run("COMMIT")
    more = len(found) > query.limit
    return JobPage(tuple(jobs), str(found[query.limit - 1]) if more else None)


def _wanted(query: JobQuery) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The statements that find the states asked for, each with the shelf it looks at."""
    states = frozenset(query.states or State)
    for state in sorted(states - _LIVE):
        yield _SHELF, (CODES[state],)
    if states >= _LIVE:
        yield _SHELF, (CODES[State.queued],)
    elif State.queued in states:
        yield _QUEUED, ()
    elif State.running in states:
        yield _RUNNING, ()


def _parse(before: str | None) -> int | None:
    if before is None:
        return None
    if not (before.isascii() and before.isdigit() and len(before) < 19):
        raise InvalidRequest(f"{before[:40]!r} is no cursor of a list", param="cursor")
    return int(before)

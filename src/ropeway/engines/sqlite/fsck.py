"""Looks for what is wrong in a file: its pages, and whether what follows from the jobs does. It mends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw

from ropeway.domain.finding import Finding
from ropeway.domain.lifecycle import TERMINAL
from ropeway.engines.sqlite.connection import SqliteOptions, open_reader, translated
from ropeway.engines.sqlite.schema import STATE_COLUMNS, STATES

__all__ = ["inspect"]

MOST = 100  # of one kind: a file that is broken is broken everywhere

_ORPHANS = {
    "inputs": "SELECT count(*) FROM inputs WHERE n NOT IN (SELECT n FROM jobs)",
    "claims": "SELECT count(*) FROM claims WHERE ttl_ms IS NOT NULL AND job_id NOT IN (SELECT id FROM jobs)",
    "events": "SELECT count(*) FROM (SELECT DISTINCT n FROM events) WHERE n NOT IN (SELECT n FROM jobs)",
}
_NO_INPUT = "SELECT id FROM jobs WHERE n NOT IN (SELECT n FROM inputs) LIMIT ?"
_NO_SESSION = (
    "SELECT id FROM jobs WHERE state = ? AND (session IS NULL OR session NOT IN (SELECT session FROM sessions)) LIMIT ?"
)
_RUN_UNDER = """
SELECT value->>'key', count(*) FROM jobs CROSS JOIN json_each(jobs.options, '$.limits')
WHERE state = ? AND options IS NOT NULL GROUP BY 1
"""
_ASTRAY = """
SELECT id FROM jobs WHERE parked IS NOT NULL AND (state <> ? OR parked NOT IN (
    SELECT value->>'key' FROM json_each(jobs.options, '$.limits'))) LIMIT ?
"""
_STUCK = """
SELECT DISTINCT parked FROM jobs WHERE parked IS NOT NULL
AND parked NOT IN (SELECT key FROM limits WHERE running > 0 OR due_ms IS NOT NULL) LIMIT ?
"""
_JOBS = "SELECT queue, tenant, count(*) FROM jobs WHERE state = ? GROUP BY queue, tenant"


def inspect(path: Path) -> list[Finding]:
    """What is wrong in a file, all of one moment; processes that use it are not held up.

    Raises EngineUnavailable: the file cannot be read at all.
    """
    connection = open_reader(path, SqliteOptions())
    try:
        connection.execute("BEGIN")
        broken = [Finding("file", str(path), text) for text in _broken_pages(connection)]
        return broken or [*_orphans(connection), *_lost(connection), *_counts(connection), *_limits(connection)]
    except apsw.Error as error:
        raise translated(error) from error
    finally:
        connection.close()


def _broken_pages(connection: apsw.Connection) -> list[str]:
    found = [str(text) for (text,) in connection.execute(f"PRAGMA integrity_check({MOST})")]
    return [] if found == ["ok"] else found


def _orphans(connection: apsw.Connection) -> Iterator[Finding]:
    for table, statement in _ORPHANS.items():
        count: int = connection.execute(statement).get
        if count:
            yield Finding("orphan", table, f"{count:,} of jobs that are not there")


def _lost(connection: apsw.Connection) -> Iterator[Finding]:
    for (job_id,) in connection.execute(_NO_INPUT, (MOST,)):
        yield Finding("row", str(job_id), "it has no input")
    for (job_id,) in connection.execute(_NO_SESSION, (STATE_COLUMNS.index("running"), MOST)):
        yield Finding("session", str(job_id), "it runs under a session that is not there")


def _counts(connection: apsw.Connection) -> Iterator[Finding]:
    """The counts of jobs that live; those that ended are counted since the store was made."""
    for code, state in enumerate(STATES):
        if state in TERMINAL:
            continue
        told = {(q, t): n for q, t, n in connection.execute(f"SELECT queue, tenant, {state} FROM counts")}  # noqa: S608
        found: dict[tuple[object, object], int] = {}
        for queue, tenant, count in connection.execute(_JOBS, (code,)):
            found[queue, tenant] = int(str(count))
            found[queue, ""] = found.get((queue, ""), 0) + int(str(count))
        for queue, tenant in sorted({*told, *found}, key=str):
            by = int(str(told.get((queue, tenant), 0))) - found.get((queue, tenant), 0)
            if by:
                what = f"{tenant}/{state} is {abs(by):,} too {'high' if by > 0 else 'low'}"
                yield Finding("count", f"counts of {queue}", what)


def _limits(connection: apsw.Connection) -> Iterator[Finding]:
    """How many run under each key, and whether each parked job waits for something that comes."""
    told = {str(key): int(str(n)) for key, n in connection.execute("SELECT key, running FROM limits WHERE running > 0")}
    running = connection.execute(_RUN_UNDER, (STATE_COLUMNS.index("running"),))
    found = {str(key): int(str(count)) for key, count in running}
    for key in sorted({*told, *found}):
        by = told.get(key, 0) - found.get(key, 0)
        if by:
            yield Finding("count", f"limit {key}", f"running is {abs(by):,} too {'high' if by > 0 else 'low'}")
    for (job_id,) in connection.execute(_ASTRAY, (STATE_COLUMNS.index("queued"), MOST)):
        yield Finding("parked", str(job_id), "it is parked, and is not queued or has no such limit")
    for (key,) in connection.execute(_STUCK, (MOST,)):
        yield Finding("parked", f"limit {key}", "jobs are parked under it, and nothing will call them")

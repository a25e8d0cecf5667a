"""The tables, and how a file gets them.

Oddities, with their reasons:

1. `shelf` repeats `state` for `find`, except that a running job keeps the shelf of the queued: so a lease, the hottest
   change, moves no entry of `listing` (2 us of 5 us a job when measured).
2. `inputs` stands apart, so that a big input is not rewritten with its row at every change of state.
3. `events.entries` is a JSON array of `[type, data]`, one row for a whole append: `seq` is the number of the first.
4. In `counts` the tenant '' stands for all of them (no tenant has an empty name), so that depths cost O(1).
5. A claim outlives its job; `orphan` marks those whose job is gone, so that pruning never meets the others.
6. A parked job stays queued, and names the limit's key that it waits for: so it leaves `ready` and enters `parked`.
7. Pages that pruning frees are used again and the file does not shrink: `VACUUM` does that, with every process stopped.
"""

from __future__ import annotations

import apsw

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.lifecycle import State

__all__ = ["APPLICATION_ID", "CODES", "STATES", "STATE_COLUMNS", "VERSION", "install"]

APPLICATION_ID = 0x52505759  # "RPWY", so that a file of somebody else's is known as such
VERSION = 4

STATES = tuple(State)
"""A state's number in the tables is its place here."""

CODES = {state: code for code, state in enumerate(STATES)}

STATE_COLUMNS = tuple(state.value for state in STATES)
"""The columns of `counts`, in the order of the numbers."""

_V1 = """
CREATE TABLE jobs(
    n INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of submits, never used again: the cursor of `find`
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    options TEXT,  -- JSON; NULL: the default ones
    priority INTEGER NOT NULL,
    state INTEGER NOT NULL,
    shelf INTEGER NOT NULL,
    rank REAL NOT NULL,
    version INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    started_epoch INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    run_at_ms INTEGER,
    queue_deadline_ms INTEGER,
    started_at_ms INTEGER,
    first_output_at_ms INTEGER,
    finished_at_ms INTEGER,
    expires_at_ms INTEGER,
    cancel_requested_at_ms INTEGER,
    cancel_reason TEXT,
    worker TEXT,
    session TEXT,
    token TEXT,
    last_outcome TEXT,
    progress TEXT,
    output TEXT,
    error TEXT,
    usage TEXT,
    retry_of TEXT,
    claim TEXT  -- the idempotency key that made this job
);
CREATE INDEX ready ON jobs(queue, rank) WHERE state = 1;
CREATE INDEX scheduled ON jobs(run_at_ms) WHERE state = 0;
CREATE INDEX deadlines ON jobs(queue_deadline_ms) WHERE state = 1 AND queue_deadline_ms IS NOT NULL;
CREATE INDEX running ON jobs(session, cancel_requested_at_ms) WHERE state = 2;
CREATE INDEX expiring ON jobs(expires_at_ms) WHERE expires_at_ms IS NOT NULL;
CREATE INDEX listing ON jobs(tenant, queue, shelf);

CREATE TABLE inputs(n INTEGER PRIMARY KEY, input TEXT NOT NULL);

CREATE TABLE events(
    n INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    entries TEXT NOT NULL,
    PRIMARY KEY (n, epoch, seq)
) WITHOUT ROWID;

CREATE TABLE claims(
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    job_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    orphan INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;
CREATE INDEX orphans ON claims(expires_at_ms) WHERE orphan = 1;

CREATE TABLE queues(queue TEXT PRIMARY KEY, policy TEXT NOT NULL, paused INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE counts(
    queue TEXT NOT NULL,
    tenant TEXT NOT NULL,
    scheduled INTEGER NOT NULL,
    queued INTEGER NOT NULL,
    running INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    PRIMARY KEY (queue, tenant)
) WITHOUT ROWID;
CREATE INDEX tenant_counts ON counts(tenant);

CREATE TABLE bands(
    queue TEXT NOT NULL,
    band INTEGER NOT NULL,
    virtual_time REAL NOT NULL,
    PRIMARY KEY (queue, band)
) WITHOUT ROWID;

CREATE TABLE flows(
    queue TEXT NOT NULL,
    band INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    last_finish REAL NOT NULL,
    PRIMARY KEY (queue, band, tenant)
) WITHOUT ROWID;

CREATE TABLE sessions(
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT NOT NULL UNIQUE,
    card TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL
);

CREATE TABLE tasks(name TEXT PRIMARY KEY, card TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE duties(duty TEXT PRIMARY KEY, holder TEXT NOT NULL, until_ms INTEGER NOT NULL) WITHOUT ROWID;
"""

_V2 = """
CREATE TABLE records(
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    body TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    PRIMARY KEY (kind, tenant, id)
);
CREATE INDEX expiring_records ON records(expires_at_ms) WHERE expires_at_ms IS NOT NULL;

CREATE TABLE buckets(
    bucket TEXT PRIMARY KEY,
    level REAL NOT NULL,  -- what it held
    at_ms INTEGER NOT NULL,  -- at this time
    full_at_ms INTEGER NOT NULL  -- a full one need not be remembered
) WITHOUT ROWID;
CREATE INDEX filling ON buckets(full_at_ms);
"""

_V3 = """
CREATE TABLE usage(
    tenant TEXT NOT NULL,
    day INTEGER NOT NULL,  -- counted from the first day of year 1, as Python does
    task TEXT NOT NULL,
    name TEXT NOT NULL,  -- '': how many jobs
    amount REAL NOT NULL,
    PRIMARY KEY (tenant, day, task, name)
) WITHOUT ROWID;
CREATE INDEX usage_days ON usage(day);
"""

_V4_CACHE = """
ALTER TABLE jobs ADD COLUMN cache TEXT;  -- the content key that this job took
ALTER TABLE jobs ADD COLUMN joined INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN sharers TEXT;
ALTER TABLE claims ADD COLUMN ttl_ms INTEGER;  -- of a content key, which goes with its job; NULL: an idempotency key
"""

_V4_LIMITS = """
ALTER TABLE jobs ADD COLUMN parked TEXT;  -- the key of the limit that this queued job waits for, out of its line
DROP INDEX ready;
CREATE INDEX ready ON jobs(queue, rank) WHERE state = 1 AND parked IS NULL;
CREATE INDEX parked ON jobs(parked, rank) WHERE parked IS NOT NULL;

ALTER TABLE queues ADD COLUMN max_running INTEGER;  -- as the policy says: its room is asked for at every lease
CREATE INDEX narrow ON queues(queue) WHERE max_running IS NOT NULL;

ALTER TABLE bands ADD COLUMN passed INTEGER NOT NULL DEFAULT 0;  -- so many leases in a row went to other bands

CREATE TABLE limits(
    key TEXT PRIMARY KEY,
    running INTEGER NOT NULL,
    level REAL,  -- what its bucket held; NULL: it is full
    at_ms INTEGER NOT NULL,  -- at this time
    paused_until_ms INTEGER NOT NULL,
    policy TEXT,  -- JSON; NULL: what jobs bring counts
    due_ms INTEGER  -- when to look at the jobs that are parked under it; NULL: when one of the key ends
) WITHOUT ROWID;
CREATE INDEX due_limits ON limits(due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX idle_limits ON limits(at_ms) WHERE running = 0 AND policy IS NULL;
"""

_V4_WAKE = """
ALTER TABLE jobs ADD COLUMN woken_epoch INTEGER NOT NULL DEFAULT 0;
"""

_V4 = _V4_CACHE + _V4_LIMITS + _V4_WAKE

_MIGRATIONS = (_V1, _V2, _V3, _V4)
"""Entry number v takes a file from schema v to v + 1; a released entry is never changed."""


def install(connection: apsw.Connection) -> None:
    """Bring a file to this schema; one that has it already is left alone. Call it outside of a transaction.

    Raises EngineUnavailable for a newer schema, and for a file that is not Ropeway's.
    """
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in _MIGRATIONS[_version(connection) :]:
            connection.execute(migration)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: apsw.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").get
    application: int = connection.execute("PRAGMA application_id").get
    if application != APPLICATION_ID and connection.execute("SELECT count(*) FROM sqlite_schema").get:
        raise EngineUnavailable(f"{connection.filename} is a database of another program: give another path")
    if version > VERSION:
        raise EngineUnavailable(
            f"{connection.filename} was written by a newer Ropeway (its schema is {version}, this one knows "
            f"{VERSION}): upgrade this one"
        )
    return version

"""Records and buckets: read, judged by the domain's rules, and written, all of a batch in one statement each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ropeway.domain import bucket
from ropeway.domain.bucket import Allowance, Level, Spend
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey
from ropeway.engines.sqlite.statements import Statements, encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["drop", "fetch", "forget_past", "put", "scan", "spend"]

_ROWS = """
SELECT json_group_array(json_array(kind, tenant, id, body, version, created_at_ms, expires_at_ms))
FROM (SELECT records.* FROM jsonb_each(?1) AS wanted CROSS JOIN records
      ON kind = wanted.value->>0 AND tenant = wanted.value->>1 AND records.id = wanted.value->>2)
WHERE expires_at_ms IS NULL OR expires_at_ms > ?2
"""

_SCAN = """
SELECT json_group_array(json_array(kind, tenant, id, body, version, created_at_ms, expires_at_ms))
FROM (SELECT * FROM records WHERE kind = ?1 AND tenant = ?2 AND id > ?3
      AND (expires_at_ms IS NULL OR expires_at_ms > ?5)
      ORDER BY id LIMIT ?4)
"""

_PUT = """
INSERT INTO records(kind, tenant, id, body, version, created_at_ms, expires_at_ms)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6 FROM jsonb_each(?1) WHERE true
ON CONFLICT DO UPDATE SET body = excluded.body, version = excluded.version, created_at_ms = excluded.created_at_ms,
    expires_at_ms = excluded.expires_at_ms
"""

_DROP = """
DELETE FROM records WHERE rowid IN (
    SELECT records.rowid FROM jsonb_each(?1) AS wanted CROSS JOIN records
    ON kind = wanted.value->>0 AND tenant = wanted.value->>1 AND records.id = wanted.value->>2)
"""

_LEVELS = """
SELECT json_group_array(json_array(bucket, level, at_ms, full_at_ms))
FROM jsonb_each(?1) AS wanted CROSS JOIN buckets ON bucket = wanted.value WHERE full_at_ms > ?2
"""

_SET_LEVELS = """
INSERT INTO buckets(bucket, level, at_ms, full_at_ms)
SELECT value->>0, value->>1, value->>2, value->>3 FROM jsonb_each(?1) WHERE true
ON CONFLICT DO UPDATE SET level = excluded.level, at_ms = excluded.at_ms, full_at_ms = excluded.full_at_ms
"""

_FORGET = (
    """
    DELETE FROM records WHERE rowid IN (
        SELECT rowid FROM records WHERE expires_at_ms <= ?1 ORDER BY expires_at_ms LIMIT ?2)
    """,
    """
    DELETE FROM buckets WHERE bucket IN (
        SELECT bucket FROM buckets WHERE full_at_ms <= ?1 ORDER BY full_at_ms LIMIT ?2)
    """,
)


class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    kind: str
    tenant: str
    id: str
    body: str
    version: int
    created_at_ms: int
    expires_at_ms: int | None

    @property
    def record(self) -> Record:
        key = RecordKey(self.kind, self.tenant, self.id)
        return Record(key, self.body, self.version, self.created_at_ms, self.expires_at_ms)


_decode_rows = msgspec.json.Decoder(list[_Row]).decode
_decode_levels = msgspec.json.Decoder(list[tuple[str, float, int, int]]).decode


def put(tx: Transaction, puts: Sequence[Put]) -> list[Record | RecordConflict]:
    """`Records.put`."""
    records = _living(tx, {put.key for put in puts}, tx.now_ms)
    written: dict[RecordKey, Record] = {}
    answers: list[Record | RecordConflict] = []
    for wish in puts:
        answer = wish.over(records.get(wish.key), tx.now_ms)
        if isinstance(answer, Record):
            records[wish.key] = written[wish.key] = answer
        answers.append(answer)
    tx.run_packed(_PUT, [_row(record) for record in written.values()])
    return answers


def drop(tx: Transaction, keys: Sequence[RecordKey]) -> list[bool]:
    """`Records.drop`."""
    there = _living(tx, {key for key in keys if key.is_name}, tx.now_ms)
    tx.run_packed(_DROP, [_place(key) for key in there])
    return [there.pop(key, None) is not None for key in keys]  # the next wish for it finds nothing


def spend(tx: Transaction, calls: Sequence[Sequence[Spend]]) -> list[list[Allowance]]:
    """`Records.spend`, of several calls."""
    names = sorted({wish.bucket for wishes in calls for wish in wishes})
    found = _decode_levels(tx.value(_LEVELS, encode_text(names), tx.now_ms))
    levels = {name: Level(level, at_ms, full_at_ms) for name, level, at_ms, full_at_ms in found}
    answers = [bucket.spend(wishes, levels, tx.now_ms) for wishes in calls]
    tx.run_packed(_SET_LEVELS, [_level_row(name, levels.get(name)) for name in names])
    return answers


def _level_row(name: str, level: Level | None) -> tuple[str, float, int, int]:
    """A full bucket has been full for ever, until a prune takes it."""
    return (name, 0.0, 0, 0) if level is None else (name, level.level, level.at_ms, level.full_at_ms)


def forget_past(tx: Transaction, limit: int) -> None:
    """Forget records that have expired, and buckets that are full, the oldest first."""
    for statement in _FORGET:
        tx.run(statement, tx.now_ms, limit)


def fetch(db: Statements, keys: Sequence[RecordKey], now_ms: int) -> list[Record | None]:
    """`Records.fetch`."""
    found = _living(db, {key for key in keys if key.is_name}, now_ms)
    return [found.get(key) for key in keys]


def scan(db: Statements, kind: str, tenant: str, after: str, limit: int, now_ms: int) -> list[Record]:
    """`Records.scan`."""
    return [row.record for row in _decode_rows(db.value(_SCAN, kind, tenant, after, limit, now_ms))]


def _living(db: Statements, keys: set[RecordKey], now_ms: int) -> dict[RecordKey, Record]:
    if not keys:
        return {}
    rows = _decode_rows(db.value(_ROWS, encode_text([_place(key) for key in keys]), now_ms))
    return {row.record.key: row.record for row in rows}


def _place(key: RecordKey) -> tuple[str, str, str]:
    return key.kind, key.tenant, key.id


def _row(record: Record) -> tuple[Any, ...]:
    return *_place(record.key), record.body, record.version, record.created_at_ms, record.expires_at_ms

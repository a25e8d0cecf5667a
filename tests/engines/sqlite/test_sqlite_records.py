"""Records and buckets in the file: what an older file gets, what is forgotten, and what each costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlite_support import TENANT, Transactions, add, look, opened

from ropeway.domain.bucket import Spend
from ropeway.domain.record import Put, Record, RecordKey
from ropeway.engines.sqlite import connection, recording, schema
from ropeway.engines.sqlite.connection import SqliteOptions
from ropeway.testing.clock import ManualClock


def key(number: int) -> RecordKey:
    return RecordKey("file", TENANT, f"{number:04}")


def structure(path: Path) -> set[tuple[object, ...]]:
    with look(path) as db:
        return set(db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema"))


async def test_an_older_file_gets_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the first schema keeps its jobs, and is afterwards as a new one is."""
    with monkeypatch.context() as older:
        older.setattr(schema, "VERSION", 1)
        older.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:1])
        connection.open_writer(tmp_path / "old.db", SqliteOptions()).close()
    with look(tmp_path / "old.db") as db:
        assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'records'").get == 0
    async with opened(tmp_path / "old.db") as engine:
        await add(engine, 1)
        assert isinstance((await engine.put([Put(key(1), "{}")]))[0], Record)
    async with opened(tmp_path / "new.db"):
        assert structure(tmp_path / "old.db") == structure(tmp_path / "new.db")


async def test_what_is_past_leaves_the_file(tmp_path: Path) -> None:
    """A prune deletes records that expired and buckets that are full, so many at a time, the oldest first."""
    clock = ManualClock()
    async with opened(tmp_path / "jobs.db", clock=clock) as engine:
        await engine.put([Put(key(n), "{}", ttl_ms=n + 1) for n in range(10)])
        for n in range(10):
            await engine.spend([Spend(f"b/{n}", 1, 1000 / (n + 1), 10)])
        clock.advance(8)
        await engine.prune(5)
        assert counts(tmp_path) == (5, 5)
        await engine.prune(5)
        assert counts(tmp_path) == (2, 2)
        assert [record.key for record in await engine.scan("file", TENANT)] == [key(8), key(9)]


def counts(home: Path) -> tuple[object, object]:
    with look(home / "jobs.db") as db:
        return db.execute("SELECT count(*) FROM records").get, db.execute("SELECT count(*) FROM buckets").get


async def test_concurrent_calls_share_a_transaction(tmp_path: Path) -> None:
    """However many write records and spend at a time, one commit pays for all of them."""
    transactions = Transactions()
    async with opened(tmp_path / "jobs.db", SqliteOptions(failpoint=transactions)) as engine:
        await engine.put([Put(key(0), "{}")])
        before = transactions.count
        spends = asyncio.gather(*(engine.spend([Spend("b/x", 1, 0.001, 30)]) for _ in range(50)))
        puts = asyncio.gather(*(engine.put([Put(key(n), "{}", 0)]) for n in range(1, 51)))
        assert [type(record) for (record,) in await puts] == [Record] * 50
        assert sum(allowance.granted for (allowance,) in await spends) == 30
        assert transactions.count - before <= 2


@pytest.mark.parametrize(
    ("statement", "bindings"),
    [
        (recording._ROWS, ("[]", 1)),
        (recording._SCAN, ("file", "t", "", 10, 1)),
        (recording._DROP, ("[]",)),
        (recording._LEVELS, ("[]", 1)),
        *((statement, (1, 10)) for statement in recording._FORGET),
    ],
)
async def test_no_statement_reads_all_the_rows(tmp_path: Path, statement: str, bindings: tuple[object, ...]) -> None:
    """Each finds its rows by an index, and needs no sorting."""
    async with opened(tmp_path / "jobs.db"):
        with look(tmp_path / "jobs.db") as db:
            steps = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", bindings)]
    assert any("SEARCH" in step for step in steps), steps
    assert not [step for step in steps if "SCAN records" in step or "SCAN buckets" in step or "TEMP B-TREE" in step]

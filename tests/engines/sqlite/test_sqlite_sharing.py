"""Content keys in the tables: what an older file makes of them, and what goes with whom."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlite_support import add, announce, as_, lease, look, new, opened

from ropeway.domain.cache import keyed_id
from ropeway.domain.job import CacheKey, NewJob, Receipt
from ropeway.domain.lease import Commit, Outcome
from ropeway.engines.base import Engine
from ropeway.engines.sqlite import SqliteOptions, connection, schema
from ropeway.testing.clock import ManualClock

KEY = CacheKey("0badcafe" + "0" * 24, 60_000)

OLD_ROWS = """
INSERT INTO jobs(n, id, tenant, queue, task, priority, state, shelf, rank, version, attempt, crashes, runs, epoch,
    seq, started_epoch, created_at_ms, claim)
    VALUES(1, 'job_old', 'default', 'chat', 'echo', 1, 1, 1, 1e12, 1, 0, 0, 0, 0, 2, 0, 1, 'k');
INSERT INTO inputs VALUES(1, '{}');
INSERT INTO claims(tenant, key, job_id, fingerprint, expires_at_ms) VALUES('default', 'k', 'job_old', 'f', 9e15);
INSERT INTO queues VALUES('chat', '{"queue":"chat"}', 0);
INSERT INTO counts VALUES('chat', '', 0, 1, 0, 0, 0, 0), ('chat', 'default', 0, 1, 0, 0, 0, 0);
"""


def keyed(number: int, **fields: object) -> NewJob:
    return new(keyed_id(str(number), KEY.key), cache=KEY, **fields)


async def submitted(engine: Engine, job: NewJob) -> Receipt:
    return as_(Receipt, (await engine.submit([job]))[0])


async def test_a_file_of_the_third_schema_keeps_its_jobs_and_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs have no sharers and its keys are idempotency keys; new submits share jobs as in a new file."""
    path = tmp_path / "jobs.db"
    with monkeypatch.context() as older:
        older.setattr(schema, "VERSION", 3)
        older.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:3])
        db = connection.open_writer(path, SqliteOptions())
        db.execute(OLD_ROWS)
        db.close()
    async with opened(path) as engine:
        (old,) = await engine.get("default", ["job_old"])
        assert old is not None
        assert (old.joined, old.sharers) == (0, None)
        again = await submitted(engine, new(5, idempotency_key="k", fingerprint="f"))
        assert (again.job.id, again.replayed) == ("job_old", True)
        first = await submitted(engine, keyed(1))
        second = await submitted(engine, keyed(2))
        assert (first.cached, second.cached, second.job.joined) == (False, True, 1)


async def test_a_content_key_goes_with_its_job(tmp_path: Path) -> None:
    """By purge and by prune; but the key of a newer job stays, also when the older one goes later."""
    clock = ManualClock()
    async with opened(tmp_path / "jobs.db", clock=clock) as engine:
        for number in (1, 2):
            await announce(engine)
            receipt = await submitted(engine, keyed(number))
            (held,) = await lease(engine)
            await engine.commit([Commit(held.lease, Outcome("failed"))])
            assert receipt.job.id == held.job_id
        assert claims(tmp_path) == [("job_2k0badcafe", 60_000, 0)]
        assert await engine.purge("default", ["job_1k0badcafe"]) == [None]
        assert claims(tmp_path) == [("job_2k0badcafe", 60_000, 0)]
        assert await engine.purge("default", ["job_2k0badcafe"]) == [None]
        assert claims(tmp_path) == []


async def test_keys_of_kept_jobs_do_not_hold_up_the_others(tmp_path: Path) -> None:
    """A prune frees so many keys at a time of jobs that are gone, however many older ones belong to jobs that stay."""
    clock = ManualClock()
    async with opened(tmp_path / "jobs.db", clock=clock) as engine:
        await submitted(engine, keyed(1))
        for number in range(3):
            await submitted(engine, keyed(2 + number, idempotency_key=f"shared {number}", fingerprint="f"))
        clock.advance(1000)
        await add(engine, 9, idempotency_key="own", fingerprint="f")
        await engine.cancel("default", ["job_9"], None)
        await engine.purge("default", ["job_9"])
        clock.advance(s=86_400)
        await engine.prune(1)
        assert [job_id for job_id, ttl_ms, _ in claims(tmp_path) if ttl_ms is None] == ["job_1k0badcafe"] * 3


def claims(home: Path) -> list[tuple[object, ...]]:
    with look(home / "jobs.db") as db:
        return list(db.execute("SELECT job_id, ttl_ms, orphan FROM claims ORDER BY key"))

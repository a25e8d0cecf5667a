"""The file: what an engine asks of it, and what it does when the disk does not play along."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from sqlite_support import TENANT, add, announce, as_, lease, look, new, opened

from ropeway.domain.errors import EngineUnavailable, OutcomeUnknown
from ropeway.domain.job import Job, Receipt
from ropeway.domain.lifecycle import State
from ropeway.engines.sqlite import SqliteEngine, SqliteOptions, connection, schema


class FaultyVfs(apsw.VFS):
    """The system's files, until told to fail."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "")
        self.name = name
        self.is_full = False
        self.fails_to_sync = False

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 (SQLite's name)
        return _FaultyFile(self, name, flags)


class _FaultyFile(apsw.VFSFile):
    def __init__(self, vfs: FaultyVfs, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._vfs = vfs

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._vfs.is_full:
            raise apsw.FullError("no space left on device")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._vfs.fails_to_sync:
            raise apsw.IOError("input/output error")
        super().xSync(flags)


@pytest.fixture
def faulty() -> Iterator[FaultyVfs]:
    vfs = FaultyVfs("ropeway-faulty")
    yield vfs
    vfs.unregister()


async def test_it_is_made_for_its_user_alone(home: Path) -> None:
    """The file, its WAL and its shared memory are readable by their owner only, and so is the wake directory."""
    async with opened(home / "jobs.db") as engine:
        await add(engine, 1)
        assert _modes(home) == {"jobs.db": 0o600, "jobs.db-wal": 0o600, "jobs.db-shm": 0o600, "jobs.db-wake": 0o700}


async def test_shutting_leaves_one_file(home: Path) -> None:
    """A clean end brings the WAL into the file, and leaves no socket behind."""
    async with opened(home / "jobs.db") as engine:
        await add(engine, 1)
    assert _modes(home).keys() == {"jobs.db", "jobs.db-wake"}
    assert _modes(home / "jobs.db-wake") == {}


async def test_it_runs_in_the_mode_that_the_guarantees_need(tmp_path: Path) -> None:
    """The file is in WAL mode, marked as ours, with the schema's version."""
    async with opened(tmp_path / "jobs.db"):
        with look(tmp_path / "jobs.db") as db:
            assert db.execute("PRAGMA journal_mode").get == "wal"
            assert db.execute("PRAGMA application_id").get == schema.APPLICATION_ID
            assert db.execute("PRAGMA user_version").get == schema.VERSION


async def test_a_file_that_cannot_be_durable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that cannot have WAL does not open, and says what to do."""
    with look(tmp_path / "jobs.db") as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("CREATE TABLE t(a)")
        with pytest.raises(EngineUnavailable):
            await SqliteEngine(tmp_path / "jobs.db", options=SqliteOptions(busy_timeout_s=0.05)).open()
    monkeypatch.setattr(connection, "_enter_wal", lambda *_: None)
    with pytest.raises(EngineUnavailable, match="journal_mode=delete"):
        await SqliteEngine(tmp_path / "other.db").open()


async def test_a_network_filesystem_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS and its like the engine does not open, and names the filesystem."""
    monkeypatch.setattr(connection, "_filesystem", lambda _directory: 0x6969)
    with pytest.raises(EngineUnavailable, match="NFS"):
        await SqliteEngine(tmp_path / "jobs.db").open()
    assert _modes(tmp_path) == {}


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A file that a newer Ropeway wrote is left alone."""
    async with opened(tmp_path / "jobs.db") as engine:
        await add(engine, 1)
    with look(tmp_path / "jobs.db") as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(EngineUnavailable, match="newer Ropeway"):
        await SqliteEngine(tmp_path / "jobs.db").open()


async def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    """Another program's database, or no database at all, is not written to."""
    with look(tmp_path / "theirs.db") as db:
        db.execute("CREATE TABLE theirs(a)")
    with pytest.raises(EngineUnavailable, match="another program"):
        await SqliteEngine(tmp_path / "theirs.db").open()
    (tmp_path / "text.db").write_text("this is no database, however long it may be" * 100)
    with pytest.raises(EngineUnavailable, match="not a database"):
        await SqliteEngine(tmp_path / "text.db").open()
    with pytest.raises(EngineUnavailable, match="cannot create"):
        await SqliteEngine(tmp_path / "nowhere" / "jobs.db").open()


async def test_an_engine_that_did_not_open_can_be_opened_later(tmp_path: Path) -> None:
    """A failed opening leaves nothing behind that a second one would trip over."""
    engine = SqliteEngine(tmp_path / "later" / "jobs.db")
    with pytest.raises(EngineUnavailable):
        await engine.open()
    with pytest.raises(EngineUnavailable):
        await add(engine, 1)
    (tmp_path / "later").mkdir()
    await engine.open()
    assert (await add(engine, 1)).version == 1
    await engine.shut()


async def test_two_engines_may_make_the_file_at_once(tmp_path: Path) -> None:
    """Engines that open a file that is not there all get it, and see each other's jobs."""
    engines = [SqliteEngine(tmp_path / "jobs.db") for _ in range(6)]
    await asyncio.gather(*(engine.open() for engine in engines))
    await asyncio.gather(*(add(engine, n) for n, engine in enumerate(engines)))
    assert [stats.queued for stats in await engines[0].stats()] == [6]
    for engine in engines:
        await engine.shut()


async def test_a_held_write_lock_is_waited_for_then_told(tmp_path: Path) -> None:
    """While somebody else writes, an operation waits; when that takes too long it fails, having done nothing."""
    async with opened(tmp_path / "jobs.db", SqliteOptions(busy_timeout_s=0.1)) as engine:
        await announce(engine)
        with look(tmp_path / "jobs.db") as db:
            db.execute("BEGIN IMMEDIATE")
            with pytest.raises(EngineUnavailable, match="write lock"):
                await add(engine, 1)
            assert await engine.get(TENANT, ["job_1"]) == [None]
            db.execute("ROLLBACK")
        assert (await add(engine, 1)).state is State.queued


async def test_an_operation_goes_on_once_the_lock_is_free(tmp_path: Path) -> None:
    """An operation that waits for another process's transaction is done after it."""
    async with opened(tmp_path / "jobs.db") as engine:
        with look(tmp_path / "jobs.db") as db:
            db.execute("BEGIN IMMEDIATE")
            waiting = asyncio.ensure_future(engine.submit([new(1)]))
            await asyncio.sleep(0)
            db.execute("ROLLBACK")
        assert as_(Receipt, (await waiting)[0]).job.id == "job_1"


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path, faulty: FaultyVfs) -> None:
    """With the disk full submits are refused and nothing is lost; with space again the engine goes on by itself."""
    async with opened(tmp_path / "jobs.db", SqliteOptions(vfs=faulty.name)) as engine:
        await announce(engine)
        kept = await add(engine, 1)
        faulty.is_full = True
        for number in range(2, 5):
            with pytest.raises(EngineUnavailable):
                await add(engine, number)
        assert await engine.get(TENANT, [kept.id, "job_2"]) == [kept, None]
        faulty.is_full = False
        await add(engine, 5)
        assert [held.job_id for held in await lease(engine, 10)] == ["job_1", "job_5"]
    with look(tmp_path / "jobs.db") as db:
        assert db.execute("PRAGMA integrity_check").get == "ok"


async def test_a_failed_sync_is_the_last_commit(tmp_path: Path, faulty: FaultyVfs) -> None:
    """A commit that the disk did not take has an unknown outcome, and the engine takes no more until opened anew."""
    async with opened(tmp_path / "jobs.db", SqliteOptions(vfs=faulty.name)) as engine:
        await add(engine, 1)
        faulty.fails_to_sync = True
        with pytest.raises(OutcomeUnknown):
            await add(engine, 2)
        faulty.fails_to_sync = False
        with pytest.raises(EngineUnavailable, match="open the engine again") as told:
            await add(engine, 3)
        assert not isinstance(told.value, OutcomeUnknown)
    async with opened(tmp_path / "jobs.db") as again:
        (job,) = await again.get(TENANT, ["job_1"])
        assert as_(Job, job).state is State.queued
        await add(again, 3)


def _modes(directory: Path) -> dict[str, int]:
    """What is in a directory, with its permissions."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}

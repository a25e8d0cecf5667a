"""The corners: what is too large for one value, broken, closed or gone."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from sqlite_support import PATIENCE_S, SESSION, TENANT, add, announce, as_, lease, look, new, opened, until

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.event import START
from ropeway.domain.job import DEFAULT_OPTIONS, Job, JobOptions, JobQuery, Receipt
from ropeway.engines.sqlite import (
    SqliteEngine,
    SqliteOptions,
    SqliteRenewer,
    connection,
    rows,
    schema,
    statements,
    wake,
)


async def test_inputs_of_every_size_come_back_whole(tmp_path: Path) -> None:
    """Inputs small and large, with every kind of character, are the same to the byte wherever they are read."""
    inputs = ['"' + r"é\n😀" * size + '"' for size in (0, 1, 1000, 5000, 100_000)]
    async with opened(tmp_path / "jobs.db") as engine:
        await announce(engine)
        answers = await engine.submit([new(n, input=text) for n, text in enumerate(inputs)])
        assert [as_(Receipt, answer).job.input for answer in answers] == inputs
        assert [as_(Job, job).input for job in await engine.get(TENANT, [f"job_{n}" for n in range(5)])] == inputs
        assert [held.input for held in await lease(engine, 5)] == inputs
        assert [job.input for job in (await engine.find(JobQuery(TENANT))).jobs] == inputs[::-1]


async def test_batches_beyond_one_value_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would not fit into one value of SQLite's is written, and read, in several."""
    monkeypatch.setattr(statements, "_PACK_BYTES", 4_000)
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.submit([new(n, input=f'"{"x" * 2000}"') for n in range(40)])
        here = engine._readers._here
        assert here is not None
        ids = [f"job_{n}" for n in range(40)]
        whole = await engine.get(TENANT, ids)
        here.limit(apsw.SQLITE_LIMIT_LENGTH, 20_000)
        assert await engine.get(TENANT, ids) == whole
        here.limit(apsw.SQLITE_LIMIT_LENGTH, 2_500)
        with pytest.raises(Exception, match="1 GB"):
            await engine.get(TENANT, ids)


def test_options_are_stored_once_decoded_once() -> None:
    """The default options take no room, and equal texts give the same object back."""
    assert rows.options_text(DEFAULT_OPTIONS) is None
    assert rows.options_text(JobOptions()) is None
    assert rows.options_from(None) is DEFAULT_OPTIONS
    own = JobOptions(timeout_s=3, tags=("a",))
    text = rows.options_text(own)
    assert text is not None
    assert rows.options_text(own) == text
    assert rows.options_from(text) == own
    assert rows.options_from(text) is rows.options_from(text)
    many = [JobOptions(timeout_s=number) for number in range(2000)]
    assert [rows.options_from(rows.options_text(options)) for options in many] == many


def test_a_failed_migration_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema is installed wholly or not at all."""
    monkeypatch.setattr(schema, "_MIGRATIONS", ("CREATE TABLE half(a); CREATE TABLE nonsense",))
    with pytest.raises(apsw.SQLError):
        connection.open_writer(tmp_path / "jobs.db", SqliteOptions())
    with look(tmp_path / "jobs.db") as db:
        assert db.execute("SELECT count(*) FROM sqlite_schema").get == 0
        assert db.execute("PRAGMA user_version").get == 0


def test_other_platforms_are_not_asked_for_their_filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no statfs, or no such directory, any filesystem is taken."""
    assert connection._filesystem(tmp_path) != 0
    assert connection._filesystem(tmp_path / "nowhere") == 0
    monkeypatch.setattr("sys.platform", "plan9")
    assert connection._filesystem(tmp_path) == 0


async def test_a_broken_file_is_told_of(tmp_path: Path) -> None:
    """A read that meets a page of nonsense raises EngineUnavailable, and says that it is the file."""
    async with opened(tmp_path / "jobs.db") as engine:
        await engine.submit([new(n, input='"' + "x" * 300 + '"') for n in range(200)])
    with closing(apsw.Connection(str(tmp_path / "jobs.db"))) as db:
        roots = [page for (page,) in db.execute("SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'jobs'")]
    with (tmp_path / "jobs.db").open("r+b") as file:
        for page in roots:
            file.seek(4096 * (int(str(page)) - 1))
            file.write(os.urandom(4096))
    async with opened(tmp_path / "jobs.db") as engine:
        with pytest.raises(EngineUnavailable, match="malformed"):
            await engine.find(JobQuery(TENANT))
        with pytest.raises(EngineUnavailable, match="malformed"):
            await add(engine, "new")


async def test_opening_an_open_engine_changes_nothing(tmp_path: Path) -> None:
    """A second `open` is no second engine; a shut one may be opened again, and `shut` again."""
    engine = SqliteEngine(tmp_path / "jobs.db")
    await engine.open()
    writer = engine._writer
    await engine.open()
    assert engine._writer is writer
    await engine.shut()
    await engine.shut()
    with pytest.raises(EngineUnavailable):
        await engine.read(TENANT, "job_1", START, 1)
    await engine.open()
    await add(engine, 1)
    await engine.shut()


async def test_an_opening_that_is_cancelled_leaves_no_thread(tmp_path: Path) -> None:
    """Who gives up while an engine opens leaves nothing running, and may open it again."""
    engine = SqliteEngine(tmp_path / "jobs.db")
    opening = asyncio.ensure_future(engine.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await until(lambda: all(thread.name != "ropeway-sqlite-writer" for thread in threading.enumerate()))
    await engine.open()
    await add(engine, 1)
    await engine.shut()


async def test_a_link_leads_to_the_same_file(home: Path) -> None:
    """Processes that reach the file by different paths hear each other all the same."""
    (home / "link.db").symlink_to(home / "jobs.db")
    async with opened(home / "jobs.db") as engine, opened(home / "link.db") as other:
        with engine.listen("job:job_1") as listener:
            await add(other, 1)
            async with asyncio.timeout(PATIENCE_S):
                assert await listener.wait() == {"job:job_1"}


async def test_nothing_asked_is_nothing_done(tmp_path: Path) -> None:
    """Empty batches are answered emptily."""
    async with opened(tmp_path / "jobs.db") as engine:
        assert await engine.submit([]) == []
        assert await engine.get(TENANT, []) == []
        assert await engine.commit([]) == []
        await engine.publish([])


def test_a_loop_that_ends_unshut_takes_its_writer_along(tmp_path: Path) -> None:
    """An engine whose loop was closed under it lets go of the file once it notices."""
    engine = SqliteEngine(tmp_path / "jobs.db")

    async def leave() -> None:
        await engine.open()
        engine._hearing.stop()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.run_until_complete(engine._readers.close())
    loop.close()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "ropeway-sqlite-writer"]
    engine._writer._inbox.put([])
    engine._writer._inbox.put(None)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


async def test_a_peer_that_listens_again_hears_of_what_it_missed(home: Path) -> None:
    """The writer, having nothing to write, goes on to tell those whose buffers were full."""
    async with opened(home / "jobs.db") as engine:
        await announce(engine)
        deaf = wake.Bell.hang(home / "jobs.db-wake")
        assert deaf is not None
        peers = engine._writer._peers
        assert peers is not None
        while not peers.owed:
            await engine.submit([new(os.urandom(4).hex(), queue="q" * 100)])
        heard: set[str] = set()

        def hear() -> bool:
            heard.update(deaf.heard())
            return wake.EVERYTHING in heard and not peers.owed

        await until(hear)
        deaf.close()


def test_a_socket_that_cannot_be_is_gone_without(tmp_path: Path) -> None:
    """A directory that takes no socket gives no bell; a peer that cannot be told is left out."""
    assert wake.Bell.hang(tmp_path / "nowhere") is None
    peers = wake.Peers(tmp_path / "nowhere")
    peers.tell(["job:1"])
    peers.close()
    (tmp_path / "no-socket.sock").write_text("")
    peers = wake.Peers(tmp_path)
    peers.tell(["job:1"])
    peers.tell([])
    assert not peers.owed
    peers.close()


def test_an_unwritable_directory_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead peer's socket that cannot be removed stays, and nobody minds."""
    gone = tmp_path / "1-dead.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left_behind:
        left_behind.bind(str(gone))

    def refuse(_path: Path) -> None:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(Path, "unlink", refuse)
    peers = wake.Peers(tmp_path)
    peers.tell(["job:1"])
    monkeypatch.undo()
    assert gone.exists()
    peers.close()


def test_a_renewer_tells_of_a_busy_file(home: Path) -> None:
    """A renewal that cannot have the lock in time raises, and the next one may succeed."""

    async def make() -> None:
        async with opened(home / "jobs.db") as engine:
            await announce(engine)

    asyncio.run(make())
    renewer = SqliteRenewer(home / "jobs.db", options=SqliteOptions(busy_timeout_s=0.05))
    with look(home / "jobs.db") as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(EngineUnavailable, match="write lock"):
            renewer.renew(SESSION, 1000)
        db.execute("ROLLBACK")
    assert renewer.renew(SESSION, 1000).alive
    renewer.close()

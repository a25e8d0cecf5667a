"""Several processes on one file: each is woken by the others' transactions, and nobody polls."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from pathlib import Path

import pytest
from sqlite_support import (
    PATIENCE_S,
    QUEUE,
    SESSION,
    TENANT,
    add,
    announce,
    as_,
    child,
    lease,
    look,
    opened,
    until,
)

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.job import Job
from ropeway.domain.lease import Commit, Outcome
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine
from ropeway.engines.sqlite import SqliteRenewer, wake

SUBMIT_ONE = """
import asyncio, sys
from ropeway.domain.job import NewJob
from ropeway.engines.sqlite import SqliteEngine

async def main():
    engine = SqliteEngine(sys.argv[1])
    await engine.open()
    sys.stdin.readline()
    await engine.submit([NewJob("job_child", "default", "chat", "echo", "{}")])
    await engine.shut()

asyncio.run(main())
"""

WORK = """
import asyncio, sys
from ropeway.domain.lease import Commit, LeaseRequest, Outcome
from ropeway.domain.worker import WorkerCard
from ropeway.engines.sqlite import SqliteEngine

async def main():
    engine = SqliteEngine(sys.argv[1])
    await engine.open()
    await engine.announce(WorkerCard("child", "child", ("chat",)))
    done = 0
    with engine.listen("queue:chat") as listener:
        print("ready", flush=True)
        while done < int(sys.argv[2]):
            leased = await engine.lease(LeaseRequest("child", "child", ("chat",), 10))
            done += len(leased)
            if leased:
                await engine.commit([Commit(held.lease, Outcome("succeeded")) for held in leased])
            else:
                await listener.wait()
    await engine.shut()

asyncio.run(main())
"""

RENEW = """
import sys
from ropeway.engines.base import Engine
from ropeway.engines.sqlite import SqliteRenewer

renewer = SqliteRenewer(sys.argv[1])
print(renewer.renew("s1", 5000).alive, renewer.renew("nobody", 5000).alive)
renewer.close_session("s1")
renewer.close()
"""


async def _state(engine: Engine, job_id: str) -> State:
    return as_(Job, (await engine.get(TENANT, [job_id]))[0]).state


async def test_another_processs_submit_wakes_this_one(home: Path) -> None:
    """A listener in one process hears of a job that another submits, with no timeout of its own."""
    async with opened(home / "jobs.db") as engine:
        await announce(engine)
        with child(SUBMIT_ONE, home / "jobs.db") as process, engine.listen(f"queue:{QUEUE}") as listener:
            await until(lambda: len(list((home / "jobs.db-wake").iterdir())) == 2)
            assert process.stdin
            process.stdin.write("now\n")
            process.stdin.flush()
            async with asyncio.timeout(PATIENCE_S):
                assert await listener.wait() == {f"queue:{QUEUE}"}
            assert [held.job_id for held in await lease(engine)] == ["job_child"]


async def test_work_goes_to_another_process_and_comes_back(home: Path) -> None:
    """A worker process that only waits for hints runs what is submitted here, and its commits are heard here."""
    async with opened(home / "jobs.db") as engine:
        with child(WORK, home / "jobs.db", 3) as process:
            assert process.stdout
            assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
            for number in range(3):
                with engine.listen(f"job:job_{number}") as listener:
                    await add(engine, number)
                    async with asyncio.timeout(PATIENCE_S):
                        while await _state(engine, f"job_{number}") is not State.succeeded:
                            await listener.wait()
            assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0


async def test_two_engines_of_one_process_hear_each_other(home: Path) -> None:
    """Engines on one file in one process are to each other as two processes are."""
    async with opened(home / "jobs.db") as one, opened(home / "jobs.db") as other:
        with one.listen("job:job_1", "lifecycle", "upkeep") as listener:
            await add(other, 1, delay_ms=1000)
            async with asyncio.timeout(PATIENCE_S):
                assert await listener.wait() == {"job:job_1", "lifecycle", "upkeep"}


async def test_a_dead_process_is_forgotten(home: Path) -> None:
    """A socket whose process is gone is removed by the first who has something to tell it."""
    async with opened(home / "jobs.db") as engine:
        gone = home / "jobs.db-wake" / "1-dead.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left_behind:
            left_behind.bind(str(gone))
        await add(engine, 1)
        await until(lambda: not gone.exists())


def test_who_missed_a_hint_is_told_so(home: Path) -> None:
    """A process too busy to take every hint is told to look at everything, once it listens again."""
    bell = wake.Bell.hang(home)
    assert bell is not None
    peers = wake.Peers(home)
    while not peers.owed:
        peers.tell(["job:1"])
    heard: set[str] = set()
    while peers.owed:
        heard |= bell.heard()
        peers.make_good()
    assert heard | bell.heard() == {"job:1", wake.EVERYTHING}
    bell.close()
    peers.close()


async def test_told_to_look_at_everything_all_are_woken(home: Path) -> None:
    """Who hears that it missed something wakes every listener that it has."""
    async with opened(home / "jobs.db") as engine:
        with engine.listen("worker:x", "queue:y") as listener:
            (own,) = (home / "jobs.db-wake").iterdir()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(wake.EVERYTHING.encode(), str(own))
            async with asyncio.timeout(PATIENCE_S):
                assert await listener.wait() == {"worker:x", "queue:y"}


async def test_many_topics_are_told_in_several_datagrams(home: Path) -> None:
    """A transaction that touches more jobs than a datagram holds tells of every one."""
    directory = home / "wake"
    directory.mkdir()
    bell = wake.Bell.hang(directory)
    assert bell is not None
    peers = wake.Peers(directory)
    topics = {f"job:{'x' * 100}{number}" for number in range(900)}
    peers.tell(topics)
    assert bell.heard() == topics
    bell.close()
    peers.close()


async def test_a_long_path_has_its_sockets_elsewhere(tmp_path: Path) -> None:
    """Where a socket's address would be too long, a directory in the temporary one stands in, and hints come."""
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    async with opened(deep / "jobs.db") as engine, opened(deep / "jobs.db") as other:
        assert not (deep / "jobs.db-wake").exists()
        directory = wake.wake_directory(deep / "jobs.db")
        assert directory is not None
        assert directory.parent == Path(tempfile.gettempdir())
        with engine.listen("job:job_1") as listener:
            await add(other, 1)
            async with asyncio.timeout(PATIENCE_S):
                assert await listener.wait() == {"job:job_1"}
    directory.rmdir()


async def test_without_sockets_the_file_itself_is_watched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no Unix sockets, or the directory cannot be ours, hints still come."""
    (home / "jobs.db-wake").write_text("somebody's file")
    async with opened(home / "jobs.db") as engine, opened(home / "jobs.db") as other:
        with engine.listen("job:job_1") as listener:
            await add(other, 1)
            async with asyncio.timeout(PATIENCE_S):
                assert await listener.wait() == {"job:job_1"}
    monkeypatch.delattr(socket, "AF_UNIX")
    assert wake.wake_directory(home / "other.db") is None


async def test_a_supervisor_renews_and_closes_from_its_own_process(home: Path) -> None:
    """A renewer made from the path alone renews a live session, knows a dead one, and has what it held run again."""
    async with opened(home / "jobs.db") as engine:
        await announce(engine)
        await add(engine, 1)
        (held,) = await lease(engine)
        with engine.listen(f"queue:{QUEUE}") as listener, child(RENEW, home / "jobs.db") as process:
            assert process.stdout
            assert await asyncio.to_thread(process.stdout.readline) == "True False\n"
            async with asyncio.timeout(PATIENCE_S):
                assert await listener.wait() == {f"queue:{QUEUE}"}
        assert (await engine.renew(SESSION, 1000)).alive is False
        (job,) = await engine.get(TENANT, ["job_1"])
        assert (as_(Job, job).state, as_(Job, job).crashes) == (State.queued, 1)
        (late,) = await engine.commit([Commit(held.lease, Outcome("succeeded"))])
        assert not isinstance(late, State)


async def test_a_renewer_works_beside_a_blocked_loop(home: Path) -> None:
    """Renewals from a thread go on while the event loop is stuck; they learn of a cancel."""
    async with opened(home / "jobs.db") as engine:
        await announce(engine, ttl_ms=1000)
        await add(engine, 1)
        await lease(engine)
        await engine.cancel(TENANT, ["job_1"], "enough")
        renewer = engine.renewer()
        answers = []
        thread = threading.Thread(target=lambda: answers.append(renewer.renew(SESSION, 90_000)))
        thread.start()
        thread.join()  # the loop does nothing meanwhile
        assert [(answer.alive, answer.cancelled) for answer in answers] == [(True, ("job_1",))]
        with look(home / "jobs.db") as db:
            assert db.execute("SELECT count(*) FROM sessions WHERE expires_at_ms > 1000").get == 1
        renewer.close()


async def test_a_renewer_needs_the_file(home: Path) -> None:
    """A renewer does not make a file: there is nothing to renew in it."""
    with pytest.raises(EngineUnavailable, match="there is no"):
        SqliteRenewer(home / "jobs.db")

"""kill -9 inside a transaction: before its commit nothing of it is there, after it all of it is."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from sqlite_support import SESSION, TENANT, announce, as_, child, lease, look, opened

from ropeway.domain.job import Job
from ropeway.domain.lease import Commit, Lease, Outcome
from ropeway.domain.lifecycle import State

DIE = """
import asyncio, os, signal, sys
from ropeway.domain.job import NewJob
from ropeway.domain.lease import Commit, LeaseRequest, Outcome
from ropeway.domain.worker import WorkerCard
from ropeway.engines.sqlite import SqliteEngine, SqliteOptions

path, point, step = sys.argv[1:]
armed = []

def die(reached):
    if armed and reached == point:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    engine = SqliteEngine(path, options=SqliteOptions(failpoint=die))
    await engine.open()
    await engine.announce(WorkerCard("child", "child", ("chat",), ttl_ms=3_600_000))
    await engine.submit([NewJob("job_kept", "default", "chat", "echo", "{}")])
    if step == "submit":
        armed.append(True)
        await engine.submit([NewJob(f"job_{n}", "default", "chat", "echo", "{}") for n in range(100)])
    (held,) = await engine.lease(LeaseRequest("child", "child", ("chat",), 1))
    print(held.lease.epoch, held.lease.token, flush=True)
    armed.append(True)
    await engine.commit([Commit(held.lease, Outcome("succeeded", "42"))])

asyncio.run(main())
"""


@pytest.mark.parametrize(("point", "queued"), [("pre_commit", 1), ("post_commit", 101)])
async def test_a_submit_is_there_wholly_or_not_at_all(tmp_path: Path, point: str, queued: int) -> None:
    """A batch of submits whose process is killed is there wholly when the commit was reached, else not at all."""
    with child(DIE, tmp_path / "jobs.db", point, "submit") as process:
        assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
    async with opened(tmp_path / "jobs.db") as engine:
        assert [(stats.queued, stats.waiting) for stats in await engine.stats()] == [(queued, queued)]
        await announce(engine)
        assert len(await lease(engine, 1000)) == queued
    _assert_sound(tmp_path / "jobs.db")


@pytest.mark.parametrize(("point", "state"), [("pre_commit", State.running), ("post_commit", State.succeeded)])
async def test_a_commit_happens_once(tmp_path: Path, point: str, state: State) -> None:
    """A commit whose process is killed happened or did not; its repeat by the holder ends well in both cases."""
    with child(DIE, tmp_path / "jobs.db", point, "commit") as process:
        assert process.stdout
        epoch, token = process.stdout.readline().split()
        assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
    async with opened(tmp_path / "jobs.db") as engine:
        assert (await _job(engine.get(TENANT, ["job_kept"]))).state is state
        repeat = Commit(Lease("job_kept", int(epoch), token), Outcome("succeeded", "42"))
        assert await engine.commit([repeat]) == [State.succeeded]
        job = await _job(engine.get(TENANT, ["job_kept"]))
        assert (job.output, job.attempt, job.version) == ("42", 1, 3)
        await engine.close(SESSION)
    _assert_sound(tmp_path / "jobs.db")


async def _job(asked: object) -> Job:
    return as_(Job, (await asked)[0])  # type: ignore[misc]


def _assert_sound(path: Path) -> None:
    """The file is intact, and the counts are those of the rows."""
    with look(path) as db:
        assert db.execute("PRAGMA integrity_check").get == "ok"
        counted = db.execute("SELECT scheduled, queued, running FROM counts WHERE tenant = ''").get
        assert counted == db.execute("SELECT sum(state = 0), sum(state = 1), sum(state = 2) FROM jobs").get

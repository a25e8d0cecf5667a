"""Signals to a worker and to its children: who dies of what, and who must not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from process_worker import SESSION_TTL_MS
from runtime_support import eventually

from ropeway.domain.job import DEFAULT_TENANT, Job, NewJob
from ropeway.domain.lifecycle import State
from ropeway.engines.sqlite import SqliteEngine, SqliteRenewer
from ropeway.runtime.supervisor import ChildSpec, Supervisor

PROGRAM = Path(__file__).parent / "process_worker.py"
PATIENCE_S = 60.0


class Scene:
    """A worker in a process and a group of its own, with one job that runs in a child."""

    def __init__(self, worker: subprocess.Popen[bytes], engine: SqliteEngine, path: Path) -> None:
        self.worker = worker
        self.engine = engine
        self.path = path

    @property
    def child(self) -> int:
        return told_pid(self.path)

    def let_go(self) -> None:
        """Let the job end."""
        let_go(self.path)

    async def left(self) -> int:
        """The worker's exit code, when it has ended."""
        await eventually(lambda: self.worker.poll() is not None, "the worker has ended", PATIENCE_S)
        assert self.worker.returncode is not None
        return self.worker.returncode

    async def drains(self) -> None:
        """Until the worker's card says that it has heard."""
        async with asyncio.timeout(PATIENCE_S):
            while [card.state for card in await self.engine.workers()] != ["draining"]:  # noqa: ASYNC110 - it is another's
                await asyncio.sleep(0.01)

    async def job(self) -> Job:
        (job,) = await self.engine.get(DEFAULT_TENANT, ["job_1"])
        assert job is not None
        return job


def start(database: Path, queue: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, PROGRAM, database, queue], start_new_session=True)


@asynccontextmanager
async def scene(home: Path, task: str, queue: str) -> AsyncIterator[Scene]:
    """The scene, once the job's code runs in its child."""
    path = home / "job"
    engine = SqliteEngine(home / "jobs.db")
    await engine.open()
    worker = start(home / "jobs.db", queue)
    try:
        await engine.submit([NewJob("job_1", DEFAULT_TENANT, queue, task, f'{{"path":"{path}"}}')])
        await eventually(is_there(f"{path}.began"), "the job runs", PATIENCE_S)
        yield Scene(worker, engine, path)
    finally:
        worker.kill()
        worker.wait()
        await engine.shut()


def is_there(path: str) -> Callable[[], bool]:
    return Path(path).exists


def told_pid(path: Path) -> int:
    """The process that runs the job, by its own word."""
    return int(Path(f"{path}.pid").read_text() or 0)


def let_go(path: Path) -> None:
    path.touch()


def has_ended(pid: int) -> bool:
    """Whether it is gone, or dead and not yet collected by whoever has it now."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


async def test_a_killed_worker_leaves_no_child(home: Path) -> None:
    """Not even one that holds its interpreter, and would hear nothing: the kernel ends it."""
    async with scene(home, "stuck", "stuck") as on:
        child = on.child
        assert not has_ended(child)
        on.worker.kill()
        await eventually(lambda: has_ended(child), "the child is gone", PATIENCE_S)


async def test_a_child_outlives_a_ctrl_c(home: Path) -> None:
    """A terminal sends it to the worker's whole group: the worker drains, and the child finishes its job."""
    async with scene(home, "hold", "held") as on:
        os.killpg(on.worker.pid, signal.SIGINT)
        assert not has_ended(on.child)
        on.let_go()
        assert await on.left() == 0
        assert (await on.job()).state is State.succeeded
        assert has_ended(on.child)


async def test_a_child_ignores_a_sigterm_that_is_not_its_workers(home: Path) -> None:
    """A service manager may send it to every process: only the worker obeys, and drains."""
    async with scene(home, "hold", "held") as on:
        child = on.child
        os.kill(child, signal.SIGTERM)
        os.kill(on.worker.pid, signal.SIGTERM)
        os.kill(child, signal.SIGTERM)
        assert not has_ended(child)
        on.let_go()
        assert await on.left() == 0
        job = await on.job()
        assert (job.state, job.attempt, job.crashes) == (State.succeeded, 1, 0)


async def test_a_second_signal_kills_the_children(home: Path) -> None:
    """Then there is no time: what a child runs is given back."""
    async with scene(home, "stuck", "stuck") as on:
        child = on.child
        os.kill(on.worker.pid, signal.SIGTERM)
        await on.drains()
        os.kill(on.worker.pid, signal.SIGTERM)
        await on.left()
        assert has_ended(child)
        job = await on.job()
        assert (job.state, job.attempt) == (State.queued, 0)


async def test_a_worker_that_is_started_again_has_children_of_its_own(home: Path) -> None:
    """Its supervisor has the job run again at once, in a new child; the old one is gone with its worker."""
    path, database = home / "job", home / "jobs.db"
    engine = SqliteEngine(database)
    await engine.open()
    program = ChildSpec("worker", (sys.executable, str(PROGRAM), str(database), "held"))
    supervisor = Supervisor([program], SqliteRenewer(database), ttl_ms=SESSION_TTL_MS)
    running = threading.Thread(target=supervisor.run, daemon=True)
    running.start()
    try:
        await engine.submit([NewJob("job_1", DEFAULT_TENANT, "held", "hold", f'{{"path":"{path}"}}')])
        await eventually(is_there(f"{path}.began"), "the job runs", PATIENCE_S)
        first = told_pid(path)
        os.kill(supervisor.pids["worker"], signal.SIGKILL)
        await eventually(lambda: told_pid(path) != first, "the job runs again", PATIENCE_S)
        assert has_ended(first)
        let_go(path)
        with engine.listen("job:job_1") as hints:
            while not (job := (await engine.get(DEFAULT_TENANT, ["job_1"]))[0]) or not job.state.terminal:
                await hints.wait(1.0)
        assert (job.state, job.attempt, job.crashes) == (State.succeeded, 2, 1)
        second = told_pid(path)
        supervisor.stop()
        await eventually(lambda: not running.is_alive(), "all have ended", PATIENCE_S)
        assert has_ended(second)
    finally:
        for _ in range(3):
            supervisor.stop()
        await eventually(lambda: not running.is_alive(), "all have ended", PATIENCE_S)
        await engine.shut()

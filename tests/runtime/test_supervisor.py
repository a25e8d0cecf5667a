"""The supervisor, on real processes: it restarts what died, has its jobs rescued at once, and ends what must end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from runtime_support import PATIENCE_S, eventually
from supervised import SESSION_TTL_MS

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.job import DEFAULT_TENANT, Job, NewJob
from ropeway.domain.lease import Renewal
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Renewer
from ropeway.engines.sqlite import SqliteEngine, SqliteRenewer
from ropeway.runtime.child import Child
from ropeway.runtime.renewals import Renewals
from ropeway.runtime.supervisor import ChildSpec, Supervisor

PROGRAM = str(Path(__file__).with_name("supervised.py"))


def child(role: str, argument: str = "", name: str = "") -> ChildSpec:
    return ChildSpec(name or role, (sys.executable, PROGRAM, role, argument))


class Running:
    """A supervisor at work in a thread of this process."""

    def __init__(self, *children: ChildSpec, renewer: Renewer | None = None, grace_s: float = 20.0) -> None:
        self.supervisor = Supervisor(children, renewer, ttl_ms=SESSION_TTL_MS, grace_s=grace_s)
        self.code: int | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.code = self.supervisor.run()

    @property
    def pids(self) -> dict[str, int]:
        return self.supervisor.pids

    async def ended(self) -> int:
        await eventually(lambda: not self.thread.is_alive(), "the supervisor has ended")
        assert self.code is not None
        return self.code

    async def stop(self) -> int:
        self.supervisor.stop()
        return await self.ended()


class Store:
    """The engine of a test, beside the processes that work on its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine = SqliteEngine(path)

    async def submit(self, job_id: str, task: str, **fields: object) -> None:
        text = msgspec.json.encode(fields).decode()
        await self.engine.submit([NewJob(job_id, DEFAULT_TENANT, "default", task, text)])

    async def job(self, job_id: str) -> Job:
        (job,) = await self.engine.get(DEFAULT_TENANT, [job_id])
        assert job is not None
        return job

    async def ended(self, job_id: str) -> Job:
        async with asyncio.timeout(PATIENCE_S):
            with self.engine.listen(f"job:{job_id}") as hints:
                while not (job := await self.job(job_id)).state.terminal:
                    await hints.wait(1.0)
        return job


@pytest.fixture(name="store")
async def make_store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "jobs.db")
    await store.engine.open()
    yield store
    await store.engine.shut()


@pytest.fixture(name="running")
async def keep_running() -> AsyncIterator[list[Running]]:
    """Whatever a test leaves running is killed."""
    started: list[Running] = []
    yield started
    for one in started:
        for _ in range(3):
            one.supervisor.stop()
        await one.ended()


async def test_a_dead_worker_s_jobs_run_again_at_once(store: Store, running: list[Running]) -> None:
    """kill -9 in the middle of a job: long before its session would expire, another life of the worker has it."""
    running.append(Running(child("work", str(store.path)), renewer=SqliteRenewer(store.path)))
    await store.submit("job_1", "die_once")
    job = await store.ended("job_1")
    assert (job.state, job.output, job.attempt, job.crashes) == (State.succeeded, "2", 2, 1)
    assert await running[0].stop() == 0


async def test_stopping_lets_running_jobs_finish(store: Store, running: list[Running], tmp_path: Path) -> None:
    """SIGTERM is passed on once; the workers drain; the supervisor ends when they have."""
    running.append(
        Running(
            child("work", str(store.path), "one"),
            child("work", str(store.path), "two"),
            renewer=SqliteRenewer(store.path),
        )
    )
    door = tmp_path / "door"
    await store.submit("job_1", "wait_for", path=str(door))
    await eventually(Path(f"{door}.began").exists, "the job runs")
    await eventually(lambda: running[0].pids.keys() == {"one", "two"}, "both run")
    running[0].supervisor.stop()
    await eventually(lambda: len(running[0].pids) == 1, "the idle worker has left")
    door.touch()
    assert await running[0].ended() == 0
    job = await store.job("job_1")
    assert (job.state, job.attempt) == (State.succeeded, 1)


async def test_a_worker_whose_supervisor_is_gone_leaves(store: Store, tmp_path: Path) -> None:
    """It sees its line end, finishes what runs and ends by itself."""
    orphan = Child(child("work", str(store.path)))
    orphan.start(0.0)
    process = orphan.process
    assert process is not None
    door = tmp_path / "door"
    await store.submit("job_1", "wait_for", path=str(door))
    await eventually(Path(f"{door}.began").exists, "the job runs")
    assert orphan._hold_fd is not None
    os.close(orphan._hold_fd)  # as the kernel does when the supervisor dies
    door.touch()
    await eventually(lambda: process.poll() is not None, "the worker has left")
    assert (process.returncode, (await store.job("job_1")).state) == (0, State.succeeded)
    assert orphan.line_fd is not None
    os.close(orphan.line_fd)


async def test_what_does_not_end_in_time_is_killed(running: list[Running], caplog: pytest.LogCaptureFixture) -> None:
    """After the grace; and it is said which."""
    running.append(Running(child("deaf"), grace_s=0.3))
    supervisor = running[0].supervisor
    await eventually(lambda: any(one.was_up for one in supervisor._children), "it is up")
    assert await running[0].stop() == 0
    assert "killing what did not end in time: deaf" in caplog.text


async def test_the_third_wish_kills(running: list[Running]) -> None:
    """Impatience is obeyed."""
    running.append(Running(child("deaf"), grace_s=3600.0))
    supervisor = running[0].supervisor
    await eventually(lambda: any(one.was_up for one in supervisor._children), "it is up")
    for _ in range(3):
        supervisor.stop()
    assert await running[0].ended() == 0


async def test_a_child_that_never_came_up_ends_everything(
    running: list[Running], caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong set-up is not tried for ever: the supervisor ends with the child's own exit code."""
    running.append(Running(child("deaf"), child("exit", "3", "broken"), grace_s=0.2))
    assert await running[0].ended() == 3
    assert "broken ended before it was up (exit code 3)" in caplog.text


async def test_a_program_that_is_not_there_ends_everything(
    running: list[Running], caplog: pytest.LogCaptureFixture
) -> None:
    """The same for one that cannot even be started."""
    running.append(Running(ChildSpec("missing", ("/no/such/program",))))
    assert await running[0].ended() == 1
    assert "missing cannot be started" in caplog.text


async def test_a_crash_loop_is_told_and_slowed_down(running: list[Running], caplog: pytest.LogCaptureFixture) -> None:
    """Each restart waits twice as long, and the log counts the deaths."""
    caplog.set_level(logging.WARNING, logger="ropeway.supervisor")
    running.append(Running(child("crash")))
    await eventually(lambda: "3 times in a row soon after its start" in caplog.text, "it has died three times")
    waits = [record.getMessage().rsplit("restart in ", 1)[1] for record in caplog.records]
    assert waits[:3] == ["0.1 s", "0.2 s", "0.4 s"]


class Unreachable:
    """A renewer whose engine is away for its first calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.closed: list[str] = []

    def renew(self, session: str, ttl_ms: int) -> Renewal:
        raise EngineUnavailable("away")

    def close_session(self, session: str) -> None:
        if self.failures:
            self.failures -= 1
            raise EngineUnavailable("away")
        self.closed.append(session)

    def close(self) -> None:
        self.closed.append("the renewer")


async def test_a_session_that_could_not_be_closed_is_closed_later() -> None:
    """An engine that is away just then does not make the jobs of the dead wait for their session to expire."""
    renewer = Unreachable(failures=1)
    renewals = Renewals(renewer, SESSION_TTL_MS)
    renewals.close(["ses_1", "ses_2"])
    await eventually(lambda: renewer.failures == 0, "it was tried")
    renewals.renew([])
    await eventually(lambda: renewer.closed == ["ses_1", "ses_2"], "they are closed")
    renewals.end()
    assert renewer.closed == ["ses_1", "ses_2", "the renewer"]


async def test_what_could_not_be_closed_is_tried_once_more_at_the_end() -> None:
    """A supervisor that leaves while the engine is away does not wait for it."""
    renewer = Unreachable(failures=1)
    renewals = Renewals(renewer, SESSION_TTL_MS)
    renewals.close(["ses_1"])
    await eventually(lambda: renewer.failures == 0, "it was tried")
    renewals.end()
    assert renewer.closed == ["ses_1", "the renewer"]


async def test_an_engine_that_hangs_holds_up_no_one(running: list[Running]) -> None:
    """A renewal that never returns: what dies is started again all the same, and a stop is obeyed."""
    hung = threading.Event()

    class Hanging(Unreachable):
        def close_session(self, session: str) -> None:
            hung.wait(PATIENCE_S)

    running.append(Running(child("deaf"), renewer=Hanging(0)))
    supervisor = running[0].supervisor
    await eventually(lambda: any(one.was_up for one in supervisor._children), "it is up")
    pid = running[0].pids["deaf"]
    supervisor._children[0].sessions.add("ses_1")
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: running[0].pids.get("deaf", pid) != pid, "it is started again")
    hung.set()


async def start_family(store: Store) -> tuple[asyncio.subprocess.Process, int]:
    """A supervisor in a process of its own, as `ropeway up` runs it, and its worker's pid, when that works."""
    script = (
        "import sys\n"
        "from ropeway.runtime.supervisor import ChildSpec, Supervisor\n"
        "from ropeway.engines.sqlite import SqliteRenewer\n"
        "worker = ChildSpec('worker', (sys.executable, *sys.argv[1:]))\n"
        "sys.exit(Supervisor([worker], SqliteRenewer(sys.argv[-1])).run())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, PROGRAM, "work", str(store.path), stderr=asyncio.subprocess.PIPE
    )
    await store.submit("job_0", "echo", n=1)
    assert (await store.ended("job_0")).output == "1"
    (card,) = await store.engine.workers()
    return process, card.pid


async def ended(process: asyncio.subprocess.Process) -> int | None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode


async def test_signals_reach_the_children_of_a_real_supervisor(store: Store) -> None:
    """SIGTERM to the supervisor ends the whole family cleanly."""
    process, _ = await start_family(store)
    process.send_signal(signal.SIGTERM)
    assert await ended(process) == 0
    assert await store.engine.workers() == []


async def test_a_stop_of_the_whole_group_lets_running_jobs_finish(store: Store, tmp_path: Path) -> None:
    """A service manager's SIGTERM reaches the worker directly and by its supervisor: one wish, not two."""
    process, worker = await start_family(store)
    door = tmp_path / "door"
    await store.submit("job_1", "wait_for", path=str(door))
    await eventually(Path(f"{door}.began").exists, "the job runs")
    os.kill(worker, signal.SIGTERM)
    while [card.state for card in await store.engine.workers()] != ["draining"]:
        assert (await store.job("job_1")).state is State.running
    process.send_signal(signal.SIGTERM)
    for _ in range(100):
        os.kill(worker, signal.SIGTERM)
        await eventually(lambda: not has_pending(worker), "it has taken the signal")
        assert (await store.job("job_1")).state is State.running
    door.touch()
    assert await ended(process) == 0
    job = await store.job("job_1")
    assert (job.state, job.attempt, job.output) == (State.succeeded, 1, "1")


async def test_the_supervisor_s_second_word_ends_a_worker_now(store: Store, tmp_path: Path) -> None:
    """SIGINT, as it sends it: what runs is given back, the attempt with it."""
    process, _ = await start_family(store)
    await store.submit("job_1", "wait_for", path=str(tmp_path / "door"))
    await eventually((tmp_path / "door.began").exists, "the job runs")
    process.send_signal(signal.SIGTERM)
    while [card.state for card in await store.engine.workers()] != ["draining"]:
        assert (await store.job("job_1")).state is State.running
    process.send_signal(signal.SIGTERM)
    assert await ended(process) == 0
    job = await store.job("job_1")
    assert (job.state, job.attempt, job.crashes) == (State.queued, 0, 0)


def has_pending(pid: int) -> bool:
    """Whether a signal was sent to a process that it has not taken yet."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return any(int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd")))

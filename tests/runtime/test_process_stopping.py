"""Stopping what runs in a child: it is asked, it is interrupted, it is killed; and nothing else is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from process_app import app
from runtime_support import Stage, eventually, stage

from ropeway.domain.errors import JobError
from ropeway.domain.lifecycle import State
from ropeway.runtime.attempt import Reason
from ropeway.runtime.process import isolate
from ropeway.runtime.process.pool import Pool
from ropeway.runtime.run import Run

LONG_S = 60.0  # a grace that no test waits for


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """What a task is told by, and tells by its neighbours."""
    return tmp_path / "job"


def is_there(path: Path, suffix: str) -> Callable[[], bool]:
    return Path(f"{path}.{suffix}").exists


def is_gone(pid: int) -> bool:
    """Whether there is no such process, not even its remains."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def begin(on: Stage, task: str, path: Path) -> str:
    """Submit a job of this task, and wait until its code runs."""
    job_id = await on.submit(task, path=str(path))
    await eventually(is_there(path, "began"), "the task runs")
    return job_id


def told(path: Path, suffix: str) -> str:
    return Path(f"{path}.{suffix}").read_text()


def let_go(path: Path) -> None:
    """Let a job that holds end."""
    path.touch()


def pid_in(path: Path) -> int:
    return int(told(path, "pid"))


async def test_a_child_hears_that_its_job_is_cancelled(path: Path) -> None:
    """`ctx.cancelled` turns true, with the reason; what was made is kept; the child lives on."""
    async with stage(app) as on:
        await on.work(queues=("heeds",), cancel_grace_s=LONG_S)
        job_id = await begin(on, "heeds", path)
        await on.cancel(job_id, "no longer wanted")
        job = await on.ended(job_id)
        assert (job.state, job.cancel_reason, job.output) == (State.cancelled, "no longer wanted", '"so far"')
        assert told(path, "why") == "cancel"
        figures = on.workers[0].snapshot()
        assert (figures.children_started, figures.children_killed) == (1, 0)


async def test_a_deaf_task_is_interrupted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the grace its code gets CancelledError, wherever it is, and may clean up; its child is replaced."""
    monkeypatch.setattr(isolate, "TERM_S", LONG_S)
    async with stage(app) as on:
        await on.work(queues=("deaf",), cancel_grace_s=0.0)
        job_id = await begin(on, "deaf", path)
        await on.cancel(job_id)
        assert (await on.ended(job_id)).state is State.cancelled
        assert is_there(path, "interrupted")()
        await eventually(lambda: is_gone(pid_in(path)), "its process is gone")
        await eventually(lambda: on.workers[0].snapshot().children_started == 2, "another takes its place")


async def test_a_stuck_task_is_killed(path: Path) -> None:
    """Code that holds the interpreter is ended by the kernel; the job is told, and the next one runs."""
    async with stage(app) as on:
        await on.work(queues=("stuck", "pids"), cancel_grace_s=0.0)
        job_id = await begin(on, "stuck", path)
        await on.cancel(job_id)
        assert (await on.ended(job_id)).state is State.cancelled
        assert is_gone(pid_in(path))
        assert on.workers[0].snapshot().children_killed == 1
        assert await on.output("pid") != pid_in(path)


async def test_a_job_out_of_time_is_killed(path: Path) -> None:
    """Its time is up: asked, killed, tried again by its retries with the code `timeout`, and no crash is counted."""
    async with stage(app) as on:
        await on.work(queues=("stuck",), cancel_grace_s=0.0)
        job_id = await begin(on, "stuck", path)
        (run,) = on.crew.executor.running
        on.crew.executor.ask(run, Reason.timeout)
        job = await on.when(job_id, lambda job: job.error is not None, "it is out of time")
        assert msgspec.json.decode(job.error or "", type=JobError).code == "timeout"
        assert job.crashes == 0


async def test_the_time_of_a_job_begins_in_its_child(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits for one, neither a timer of its runs nor its code."""
    async with stage(app) as on:
        await on.work(queues=("held",), children=1)
        first = await begin(on, "hold", path)
        watched: list[Run] = []
        monkeypatch.setattr(on.crew.executor, "watch", watched.append)
        await lease_one_more(on, monkeypatch)
        waits = await on.submit("hold", path=str(path))
        await on.when(waits, lambda job: job.state is State.running, "it is leased")
        assert watched == []
        let_go(path)
        await on.ended(first)
        assert (await on.ended(waits)).state is State.succeeded
        assert [run.assignment.job_id for run in watched] == [waits]


async def lease_one_more(on: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the worker lease a job for which no child is idle."""
    monkeypatch.setattr(Pool, "free", property(lambda _: 1))
    on.crew.poller.refresh()


async def test_what_a_task_starts_is_killed_with_it(path: Path) -> None:
    """A process that the task has started is of its group, and ends with it."""
    async with stage(app) as on:
        await on.work(queues=("starts",), cancel_grace_s=0.0)
        job_id = await begin(on, "starts", path)
        other = int(told(path, "other"))
        assert not is_gone(other)
        await on.cancel(job_id)
        await on.ended(job_id)
        await eventually(lambda: is_gone(other) or is_defunct(other), "what it started is gone")


def is_defunct(pid: int) -> bool:
    """Dead, and not yet collected by whoever is its parent now."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


async def test_a_job_that_waits_for_a_child_is_cancelled_without_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not begun, and never does."""
    async with stage(app) as on:
        await on.work(queues=("held",), children=1)
        first = await begin(on, "hold", path)
        await lease_one_more(on, monkeypatch)
        waits = await on.submit("hold", path=str(tmp_path / "other"))
        await on.when(waits, lambda job: job.state is State.running, "it is leased")
        await on.cancel(waits)
        assert (await on.ended(waits)).state is State.cancelled
        assert not is_there(tmp_path / "other", "began")()
        let_go(path)
        assert (await on.ended(first)).state is State.succeeded


async def test_a_drain_lets_a_child_finish(path: Path) -> None:
    """Within the grace its job ends as it would; then the child closes what it had opened."""
    async with stage(app) as on:
        worker = await on.work(queues=("held",), grace_s=LONG_S)
        job_id = await begin(on, "hold", path)
        worker.drain()
        let_go(path)
        assert (await on.ended(job_id)).state is State.succeeded
        await on.runs[0]
        assert is_gone(pid_in(path))


async def test_a_drain_gives_back_what_does_not_finish(path: Path) -> None:
    """After the grace the child is killed, and the job is back in its place, no attempt spent."""
    async with stage(app) as on:
        worker = await on.work(queues=("stuck",), grace_s=0.0)
        job_id = await begin(on, "stuck", path)
        worker.drain()
        await on.runs[0]
        job = await on.job(job_id)
        assert (job.state, job.attempt, job.crashes) == (State.queued, 0, 0)
        assert is_gone(pid_in(path))


async def test_resources_are_closed_when_the_worker_leaves(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is let go runs what stands after the resource's yield."""
    monkeypatch.setenv("CLOSED_MARK", f"{path}.closed")
    async with stage(app) as on:
        worker = await on.work(queues=("model",))
        await on.output("count")
        await worker.stop()
        assert is_there(path, "closed")()


async def test_a_child_that_will_not_close_is_killed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing keeps the worker from leaving."""
    monkeypatch.setenv("CLOSED_MARK", "hang")
    monkeypatch.setattr(isolate, "CLOSE_S", 0.05)
    async with stage(app) as on:
        worker = await on.work(queues=("model",))
        (pid, _, _) = await on.output("count")
        await worker.stop()
        assert is_gone(pid)

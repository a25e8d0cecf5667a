"""What a job in a child comes to when its code fails, and when it takes its process with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from process_app import app
from runtime_support import stage

from ropeway.domain.errors import JobError
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State


@pytest.mark.parametrize(
    ("what", "code", "kind", "message"),
    [
        ("value", "task_error", "ValueError", "no such thing"),
        ("fail", "own_code", "ropeway.domain.errors.Fail", "for good"),
        ("again", "task_error", "ropeway.domain.errors.RetryAfter", "later"),
        ("memory", "out_of_memory", "MemoryError", "MemoryError"),
        ("exit", "task_error", "SystemExit", "as a program does"),
    ],
)
async def test_an_exception_in_a_child_is_recorded_as_elsewhere(what: str, code: str, kind: str, message: str) -> None:
    """Code, type, message and the user's part of the traceback; and the next job runs."""
    async with stage(app) as on:
        await on.work(queues=("faults",))
        error = await on.error("raises", what=what)
        assert (error.code, error.type, error.message) == (code, kind, message)
        assert "in raises" in (error.traceback or "")
        assert "ropeway/runtime" not in (error.traceback or "")
        assert (await on.error("raises", what="value")).code == "task_error"


async def test_an_input_or_output_that_does_not_fit_ends_the_job() -> None:
    """The child reads the input by the task's types, and writes the output as JSON: neither is tried again."""
    async with stage(app) as on:
        await on.work(queues=("faults",))
        assert (await on.error("raises", what=3)).code == "input_invalid"
        assert (await on.error("odd")).code == "output_invalid"


@pytest.mark.parametrize(
    ("how", "signal", "exit_code"),
    [
        ("segfault", "SIGSEGV", None),
        ("abort", "SIGABRT", None),
        ("killed", "SIGKILL", None),
        ("exit", None, 3),
        ("clean", None, 0),
    ],
)
async def test_a_crash_is_told_with_its_signal_or_exit_code(
    how: str, signal: str | None, exit_code: int | None
) -> None:
    """It runs `max_crashes` times in all, whatever its retries are, and then the job fails with that."""
    async with stage(app) as on:
        await on.work(queues=("crashes",))
        job = await on.run("crash", how=how)
        error = error_of(job)
        assert (job.state, job.crashes, job.attempt) == (State.failed, 3, 3)
        assert (error.code, error.signal, error.exit_code) == ("process_crashed", signal, exit_code)
        told = await on.data(job.id, "job.retrying")
        assert [(data["reason"], data["attempt"], data["error"]["retryable"]) for data in told] == [
            ("crashed", 1, True),
            ("crashed", 2, True),
        ]
        assert on.workers[0].snapshot().children_crashed == 3


async def test_a_crash_says_where_the_code_was() -> None:
    """The interpreter's last words stand in the place of a traceback."""
    async with stage(app) as on:
        await on.work(queues=("crashes",))
        told = error_of(await on.run("crash", how="segfault")).traceback or ""
        assert "Segmentation fault" in told
        assert "in crash" in told


async def test_a_crash_costs_no_other_job(tmp_path: Path) -> None:
    """The job in the child beside it goes on; a new child takes the dead one's place."""
    async with stage(app) as on:
        await on.work(queues=("held", "crashes"))
        path = tmp_path / "go"
        held = await on.submit("hold", path=str(path))
        await on.when(held, lambda job: job.state is State.running, "the other runs")
        crashed = await on.run("crash_once")
        assert (crashed.output, crashed.crashes) == ("2", 1)
        path.touch()
        job = await on.ended(held)
        assert (job.state, job.attempt) == (State.succeeded, 1)


async def test_a_child_that_cannot_open_its_resources_stops_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would if they were the worker's own: with the reason, and no job fails."""
    monkeypatch.setenv("BROKEN_MODEL", "1")
    async with stage(app) as on:
        worker = await on.work(queues=("broken",))
        (error,) = await results(on.runs)
        assert "resource 'weights' failed to open: OSError: no such weights" in str(error)
        assert worker.snapshot().state == "ended"


async def test_a_child_that_dies_as_it_starts_stops_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never came up: a wrong set-up, told with how it died."""
    monkeypatch.setenv("BROKEN_MODEL", "die")
    async with stage(app) as on:
        await on.work(queues=("broken",))
        (error,) = await results(on.runs)
        assert "died as it started: exit code 4" in str(error)


async def results(runs: list[Any]) -> list[Any]:
    return await asyncio.gather(*runs, return_exceptions=True)


def error_of(job: Job) -> JobError:
    return msgspec.json.decode(job.error or "", type=JobError)

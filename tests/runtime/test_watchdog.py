"""A worker that has gone deaf leaves; one that is busy, held up or without an engine is not deaf."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from runtime_support import PATIENCE_S, stage

from ropeway.domain.lifecycle import State
from ropeway.engines.base import EngineBroken
from ropeway.runtime import App, WorkerDeaf
from ropeway.runtime.watchdog import Watchdog
from ropeway.testing import ManualClock

PROGRAM = str(Path(__file__).with_name("supervised.py"))


class Poller:
    polls = 0
    is_due = True


class Keeper:
    answered = True


class Dog:
    """A watchdog with everything about it in the test's hands; its interval is 15 s."""

    def __init__(self) -> None:
        self.poller, self.keeper, self.clock = Poller(), Keeper(), ManualClock()
        self.watchdog = Watchdog(self.poller, self.keeper, 15.0, self.clock)
        self.watchdog.check()

    def look(self, times: int, every_s: float = 1.0) -> None:
        for _ in range(times):
            self.clock.advance(s=every_s)
            self.watchdog.check()


def test_questions_that_are_never_answered_are_deafness() -> None:
    """After three intervals, while renewals are answered."""
    dog = Dog()
    dog.look(45)
    with pytest.raises(WorkerDeaf, match="no question for work was answered for 46 s"):
        dog.look(1)


def test_an_answer_ends_the_doubt() -> None:
    """However empty: the queue may be."""
    dog = Dog()
    for _ in range(5):
        dog.look(44)
        dog.poller.polls += 1


def test_who_need_not_ask_is_not_deaf() -> None:
    """A worker without room asks nothing."""
    dog = Dog()
    dog.look(44)
    dog.poller.is_due = False
    dog.look(100)
    dog.poller.is_due = True
    dog.look(44)


def test_an_engine_that_answers_nobody_is_an_outage() -> None:
    """The time of an outage does not count, and what comes after counts anew."""
    dog = Dog()
    dog.keeper.answered = False
    dog.look(1000)
    dog.keeper.answered = True
    dog.look(44)


def test_code_that_holds_the_loop_is_not_deafness() -> None:
    """Nobody looked meanwhile, so nobody asked either: the time counts as one interval."""
    dog = Dog()
    dog.look(1, every_s=3600.0)
    dog.look(29)


async def test_a_deaf_worker_lets_its_jobs_finish_and_says_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """Its leases hang: it lets go of them, drains, and fails with the reason; what was queued stays queued."""
    app = App()
    began, go = asyncio.Event(), asyncio.Event()

    @app.task
    async def hold() -> str:
        began.set()
        await go.wait()
        return "done"

    async with stage(app) as on:
        await on.work()
        running = await on.submit("hold")
        await began.wait()

        async def lease(request: Any) -> Any:
            await asyncio.Event().wait()

        on.engine.lease = lease  # type: ignore[method-assign]
        waiting = await on.submit("hold")
        watchdog, keeper = on.crew.watchdog, on.crew.keeper
        keeper.beat()
        worker = on.workers[0]
        with pytest.raises(WorkerDeaf) as deaf:
            for _ in range(5):
                on.clock.advance(s=15)
                watchdog.check()
        worker._fail(deaf.value)
        go.set()
        with pytest.raises(WorkerDeaf):
            await asyncio.wait_for(on.runs[0], PATIENCE_S)
        assert (await on.job(running)).state is State.succeeded
        assert (await on.job(waiting)).state is State.queued
        assert "cannot go on: no question for work was answered" in caplog.text


async def test_a_deaf_process_ends_with_70(tmp_path: Path) -> None:
    """Of itself, and soon, though everything that it asks of its engine hangs; its log says why."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        PROGRAM,
        "deaf-worker",
        str(tmp_path / "jobs.db"),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ},
    )
    _, told = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 70
    assert b"no question for work was answered" in told


async def test_a_worker_whose_engine_must_be_opened_anew_ends() -> None:
    """There is no waiting for a disk that failed a sync: who runs the process starts it again."""
    app = App()

    @app.task
    async def work() -> None: ...

    async with stage(app) as on:

        async def submit(jobs: Any) -> Any:
            raise EngineBroken("the disk failed in a commit")

        on.engine.submit = submit  # type: ignore[method-assign]
        await on.work(session_ttl_ms=500)
        with pytest.raises(EngineBroken):
            await asyncio.wait_for(on.runs[0], PATIENCE_S)

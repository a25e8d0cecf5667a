"""Outcomes reach the engine: repeated until acknowledged, in batches, and never once the lease is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from runtime_support import Stage, eventually, stage

from ropeway.domain.errors import EngineUnavailable, LeaseLost
from ropeway.domain.lease import Commit
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context, given
from ropeway.runtime.crew import COMMIT_AHEAD
from ropeway.testing import FaultyEngine, scripted


def echo_app() -> App:
    app = App()

    @app.task
    async def echo(n: int) -> int:
        return n

    return app


class Commits:
    """Stands before the engine's `commit`: keeps the batches, and refuses or holds them as a test says."""

    def __init__(self, on: Stage) -> None:
        self.batches: list[Sequence[Commit]] = []
        self.open = asyncio.Event()
        self.refuse: Any = lambda commit: None
        self._commit = on.engine.commit
        on.engine.commit = self.commit  # type: ignore[method-assign]

    async def commit(self, batch: Sequence[Commit]) -> list[State | LeaseLost]:
        self.batches.append(batch)
        for commit in batch:
            error = self.refuse(commit)
            if error is not None:
                raise error
        await self.open.wait()
        return await self._commit(batch)


@pytest.mark.parametrize("moments", [["before"] * 3, ["after"], ["after", "before", "after"]], ids=str)
async def test_a_commit_is_repeated_until_the_engine_acknowledges_it(moments: Any) -> None:
    """Lost on the way there or on the way back: the job has one outcome, from one run."""
    app = echo_app()
    async with stage(app, scripted(commit=moments)) as on:
        worker = await on.work()
        job = await on.run("echo", n=7)
        assert (job.state, job.output, job.attempt) == (State.succeeded, "7", 1)
        await eventually(lambda: worker.snapshot().outcomes == {"succeeded": 1}, "the worker knows")
        assert isinstance(on.engine, FaultyEngine)
        assert on.engine.calls["commit"] == len(moments) + 1


async def test_work_goes_on_while_a_commit_is_in_flight_and_the_rest_goes_with_the_next() -> None:
    """One call at a time; what ends meanwhile is committed together."""
    app = echo_app()
    async with stage(app) as on:
        commits = Commits(on)
        worker = await on.work()
        first = await on.submit("echo", n=0)
        await eventually(lambda: len(commits.batches) == 1, "the first commit is under way")
        jobs = [await on.submit("echo", n=n) for n in range(50)]
        await eventually(lambda: worker.snapshot().committing == 51, "all have run")
        assert len(commits.batches) == 1
        commits.open.set()
        for job_id in (first, *jobs):
            assert (await on.ended(job_id)).state is State.succeeded
        assert [len(batch) for batch in commits.batches] == [1, 50]


async def test_an_outcome_of_a_lost_lease_goes_nowhere() -> None:
    """The engine refuses the zombie's commit; the worker counts it and asks no more."""
    app = echo_app()
    async with stage(app) as on:
        commits = Commits(on)
        worker = await on.work()
        job_id = await on.submit("echo", n=1)
        await eventually(lambda: len(commits.batches) == 1, "the commit is under way")
        session = on.crew.sessions.current
        assert session is not None
        await on.engine.close(session.id)
        commits.open.set()
        await eventually(lambda: worker.snapshot().outcomes == {"lost": 1}, "the worker knows")
        assert (await on.job(job_id)).state is State.queued
        assert not session.attempts
        on.crew.keeper.beat()
        assert (await on.ended(job_id)).crashes == 1


async def test_an_outcome_that_the_engine_cannot_take_fails_its_job_alone() -> None:
    """The batch is tried one by one; the culprit fails with `output_invalid`, the others succeed."""
    app = echo_app()
    async with stage(app) as on:
        commits = Commits(on)
        commits.refuse = lambda commit: RuntimeError("too big") if commit.outcome.output == "1" else None
        commits.open.set()
        await on.work()
        jobs = [await on.submit("echo", n=n) for n in range(3)]
        ended = [await on.ended(job_id) for job_id in jobs]
        assert [job.state for job in ended] == [State.succeeded, State.failed, State.succeeded]
        assert "output_invalid" in (ended[1].error or "")


async def test_an_engine_that_is_away_gets_no_more_work_to_lose() -> None:
    """Outcomes that cannot be committed are bounded: past that, no more is leased."""
    app = echo_app()
    async with stage(app) as on:
        commits = Commits(on)
        commits.refuse = lambda commit: EngineUnavailable()
        worker = await on.work(concurrency=100)
        jobs = [await on.submit("echo", n=n) for n in range(COMMIT_AHEAD + 500)]
        await eventually(lambda: worker.snapshot().committing >= COMMIT_AHEAD, "the bound is reached")
        for _ in range(10):
            await asyncio.sleep(0)
        assert worker.snapshot().committing < COMMIT_AHEAD + 100
        assert (await on.job(jobs[-1])).state is State.queued
        commits.refuse = lambda commit: None
        commits.open.set()
        assert (await on.ended(jobs[-1])).state is State.succeeded


async def test_a_job_may_come_back_before_its_last_commit_is_known() -> None:
    """Retried at once by this very worker: the late reply to the old commit does not touch the new attempt."""
    app = App()
    second = asyncio.Event()
    hold = asyncio.Event()

    @app.task(retry=Retry(max_attempts=2, base_s=0))
    async def flaky(*, ctx: Context = given) -> int:
        if ctx.attempt == 1:
            raise ValueError
        second.set()
        await hold.wait()
        return ctx.attempt

    async with stage(app) as on:
        commit = on.engine.commit

        async def late_reply(batch: Sequence[Commit]) -> list[State | LeaseLost]:
            answers = await commit(batch)
            if not second.is_set():
                await second.wait()
            return answers

        on.engine.commit = late_reply  # type: ignore[method-assign]
        worker = await on.work()
        job_id = await on.submit("flaky")
        await second.wait()
        await eventually(lambda: worker.snapshot().outcomes == {"queued": 1}, "the first reply is in")
        session = on.crew.sessions.current
        assert session is not None
        assert list(session.attempts) == [job_id]
        hold.set()
        assert (await on.ended(job_id)).output == "2"

"""Sessions: kept alive beside blocked code, given up in time, never committed under once lost, and replaced."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from runtime_support import PATIENCE_S, Stage, eventually, stage

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.job import DEFAULT_TENANT, NewJob
from ropeway.domain.lease import Assignment, LeaseRequest, Renewal
from ropeway.domain.lifecycle import State
from ropeway.engines.memory import MemoryEngine
from ropeway.runtime import App, Context, Worker, WorkerOptions, given
from ropeway.runtime.attempt import Session
from ropeway.runtime.keeper import Keeper
from ropeway.runtime.sessions import fence_s
from ropeway.testing import FaultyEngine, Moment, scripted


class Held:
    """A task that runs until the test lets it go, and what became of each attempt."""

    def __init__(self) -> None:
        self.app = App()
        self.began: list[int] = []
        self.stopped: list[tuple[int, str | None]] = []
        self.go = asyncio.Event()

        @self.app.task
        async def hold(*, ctx: Context = given) -> int:
            self.began.append(ctx.attempt)
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.stopped.append((ctx.attempt, ctx.stop_reason))
                raise
            return ctx.attempt


def session_of(on: Stage) -> Session:
    session = on.crew.sessions.current
    assert session is not None
    return session


class Renewals:
    """A renewer that fails while told to."""

    def __init__(self, keeper: Keeper) -> None:
        self.away = False
        self.error: Exception = EngineUnavailable("away")
        self._renewer = keeper._renewer
        keeper._renewer = self

    def renew(self, session: str, ttl_ms: int) -> Renewal:
        if self.away:
            raise self.error
        return self._renewer.renew(session, ttl_ms)

    def close_session(self, session: str) -> None:
        self._renewer.close_session(session)

    def close(self) -> None:
        self._renewer.close()


async def test_a_blocked_event_loop_keeps_its_leases() -> None:
    """Code that holds the loop for longer than a session lives loses nothing: a thread renews beside it."""
    app = App()
    engine = MemoryEngine()
    await engine.open()
    ttl_ms = 500
    workers: list[Worker] = []
    rescued: list[int] = []

    @app.task
    async def hog(*, ctx: Context = given) -> int:
        keeper = crew_of(workers[0]).keeper
        began_s, beats = time.monotonic(), keeper.beats
        while time.monotonic() - began_s < 2 * ttl_ms / 1000 or keeper.beats < beats + 8:
            assert time.monotonic() - began_s < PATIENCE_S, "the keeper does not beat"
            sum(range(10_000))
        rescued.append(await engine.rescue(10))
        return ctx.attempt

    worker = Worker(app, engine, WorkerOptions(session_ttl_ms=ttl_ms, upkeep=False))
    workers.append(worker)
    run = asyncio.create_task(worker.run())
    await worker.started()
    await engine.submit([NewJob("job_1", DEFAULT_TENANT, "default", "hog", "{}")])
    await eventually(lambda: worker.snapshot().outcomes != {}, "the job has ended")
    (job,) = await engine.get(DEFAULT_TENANT, ["job_1"])
    assert job is not None
    assert (job.state, job.output, job.crashes, rescued) == (State.succeeded, "1", 0, [0])
    await worker.stop()
    await run
    await engine.shut()


def crew_of(worker: Worker) -> Any:
    assert worker._crew is not None
    return worker._crew


async def test_a_lost_session_is_not_committed_under_and_is_replaced() -> None:
    """Rescued while it was silent: its attempt is stopped, uncommitted; the job runs again under a new session."""
    held = Held()
    async with stage(held.app) as on:
        worker = await on.work()
        old = session_of(on)
        job_id = await on.submit("hold")
        await eventually(lambda: held.began == [1], "the first attempt runs")
        on.clock.advance(s=86_401)
        assert await on.engine.rescue(10) == 1
        on.crew.keeper.beat()
        assert old.lost, "marked by the keeper's own thread, before the loop has heard"
        await eventually(lambda: held.began == [1, 2], "the second attempt runs")
        assert held.stopped == [(1, "lost")]
        assert session_of(on) is not old
        held.go.set()
        job = await on.ended(job_id)
        assert (job.state, job.output, job.attempt, job.crashes) == (State.succeeded, "2", 2, 1)
        await eventually(lambda: worker.snapshot().outcomes == {"lost": 1, "succeeded": 1}, "both are counted")


async def test_nothing_is_committed_once_the_keeper_knows() -> None:
    """The loop has not heard yet, and the code ends just now: `lost` is looked at before every commit."""
    held = Held()
    async with stage(held.app) as on:
        worker = await on.work()
        await on.submit("hold")
        await eventually(lambda: held.began == [1], "it runs")
        commits: list[Any] = []

        async def commit(batch: Any) -> Any:
            commits.append(batch)
            raise AssertionError("committed under a lost session")

        on.engine.commit = commit  # type: ignore[method-assign]
        session_of(on).lost = True  # as the keeper's thread does
        held.go.set()
        await eventually(lambda: worker.snapshot().outcomes == {"lost": 1}, "it is given up")
        assert commits == []


async def test_a_worker_whose_renewals_fail_gives_up_in_time() -> None:
    """The engine is there, and may soon give its jobs to others: it stops them before, and commits none."""
    held = Held()
    async with stage(held.app) as on:
        await on.work(session_ttl_ms=10_000)
        on.crew.keeper.stop()  # its beats are the test's from here
        renewals = Renewals(on.crew.keeper)
        sessions, keeper = on.crew.sessions, on.crew.keeper
        old = session_of(on)
        job_id = await on.submit("hold")
        await eventually(lambda: held.began == [1], "it runs")
        renewals.away, renewals.error = True, RuntimeError("refused")
        on.clock.advance(s=8)
        keeper.beat()
        sessions.check()
        sessions.check()
        assert not old.lost, "8 s of 10: two are left"
        on.clock.advance(ms=1)
        sessions.check()
        assert not old.lost, "one look may be at an instant between two tries"
        sessions.check()
        assert old.lost
        await eventually(lambda: held.stopped == [(1, "lost")], "the attempt was stopped")
        held.go.set()
        assert (await on.ended(job_id)).attempt == 2


async def test_running_jobs_go_on_through_an_outage_and_commit_after_it() -> None:
    """The engine cannot be reached by anyone for longer than a session lives: nothing is lost, no attempt is burnt."""
    held = Held()
    async with stage(held.app, scripted()) as on:
        worker = await on.work(session_ttl_ms=10_000)
        on.crew.keeper.stop()
        renewals, keeper, sessions = Renewals(on.crew.keeper), on.crew.keeper, on.crew.sessions
        assert isinstance(on.engine, FaultyEngine)
        job_id = await on.submit("hold")
        await eventually(lambda: held.began == [1], "it runs")
        down = True
        renewals.away, on.engine.plan = True, lambda method, nth: "before" if down else None
        held.go.set()
        for _ in range(9):
            on.clock.advance(s=30)
            keeper.beat()
            sessions.check()
        await eventually(lambda: worker.snapshot().committing == 1, "it has ended, and waits to commit")
        assert not session_of(on).lost
        down = renewals.away = False
        job = await on.ended(job_id)
        assert (job.state, job.attempt, job.crashes) == (State.succeeded, 1, 0)


async def test_an_outage_that_does_not_end_is_given_up() -> None:
    """After `outage_s` the job's code is stopped; the engine may come back without it."""
    held = Held()
    async with stage(held.app) as on:
        await on.work(session_ttl_ms=10_000, outage_s=60)
        on.crew.keeper.stop()
        renewals, keeper, sessions = Renewals(on.crew.keeper), on.crew.keeper, on.crew.sessions
        await on.submit("hold")
        await eventually(lambda: held.began == [1], "it runs")
        renewals.away = True
        on.clock.advance(s=60)
        keeper.beat()
        for _ in range(3):
            sessions.check()
        assert not session_of(on).lost
        on.clock.advance(ms=1)
        for _ in range(2):
            sessions.check()
        await eventually(lambda: held.stopped == [(1, "lost")], "the attempt was stopped")


async def test_a_worker_whose_jobs_went_elsewhere_in_an_outage_lets_them_go() -> None:
    """Only it was cut off: when it is back the engine says that the session is over, and its jobs are stopped."""
    held = Held()
    async with stage(held.app) as on:
        await on.work(session_ttl_ms=10_000)
        on.crew.keeper.stop()
        renewals, keeper = Renewals(on.crew.keeper), on.crew.keeper
        await on.submit("hold")
        await eventually(lambda: held.began == [1], "it runs")
        renewals.away = True
        on.clock.advance(s=30)
        keeper.beat()
        assert await on.engine.rescue(10) == 1
        renewals.away = False
        keeper.beat()
        await eventually(lambda: held.stopped == [(1, "lost")], "the attempt was stopped")
        await eventually(lambda: held.began == [1, 2], "and runs again")


async def test_an_engine_that_is_away_is_asked_once_a_beat() -> None:
    """It may hold a renewal for seconds; for each of several sessions that would come to more than a session's life."""
    held = Held()
    async with stage(held.app) as on:
        await on.work(session_ttl_ms=10_000)
        on.crew.keeper.stop()
        renewals, keeper, sessions = Renewals(on.crew.keeper), on.crew.keeper, on.crew.sessions
        first = session_of(on)
        await on.submit("hold")
        await eventually(lambda: held.began == [1], "the first holds a job")
        sessions.retire(first)
        await eventually(lambda: len(sessions.held) == 2, "there is a second")
        tried: list[str] = []
        plain = renewals.renew

        def renew(session: str, ttl_ms: int) -> Renewal:
            tried.append(session)
            return plain(session, ttl_ms)

        renewals.renew = renew  # type: ignore[method-assign]
        renewals.away = True
        keeper.beat()
        assert tried == [first.id]
        assert [session.trying for session in sessions.held] == [True, True]
        assert not keeper.answered
        renewals.away = False
        keeper.beat()
        assert (len(tried), keeper.answered) == (3, True)


async def test_a_standstill_is_no_failure_to_renew() -> None:
    """Code that held the interpreter kept the keeper from trying: the supervisor may have renewed all along."""
    held = Held()
    async with stage(held.app) as on:
        await on.work(session_ttl_ms=10_000)
        on.crew.keeper.stop()
        on.crew.keeper.beat()
        on.clock.advance(s=60)
        for _ in range(3):
            on.crew.sessions.check()
        assert not session_of(on).lost


async def test_a_renewal_that_succeeds_again_ends_the_alarm() -> None:
    """Failures count only in a row."""
    held = Held()
    async with stage(held.app) as on:
        await on.work(session_ttl_ms=10_000)
        on.crew.keeper.stop()
        renewals = Renewals(on.crew.keeper)
        for _ in range(4):
            renewals.away = True
            on.clock.advance(s=7)
            on.crew.keeper.beat()
            renewals.away = False
            on.crew.keeper.beat()
            on.crew.sessions.check()
        assert not session_of(on).lost


@pytest.mark.parametrize(("ttl_ms", "expected_s"), [(10_000, 8.0), (30_000, 28.0), (2_000, 1.0), (500, 0.25)])
def test_the_fence_stands_before_the_end_of_the_lease(ttl_ms: int, expected_s: float) -> None:
    """Two seconds before; for very short sessions, at half."""
    assert fence_s(ttl_ms) == expected_s


async def test_a_cancel_comes_by_the_keeper_when_no_hint_does() -> None:
    """Hints may be lost; a renewal tells of every job that was asked to stop."""
    held = Held()
    async with stage(held.app) as on:
        await on.work()
        job_id = await on.submit("hold")
        await eventually(lambda: held.began == [1], "it runs")

        async def deaf(session: Session) -> None:
            """A hint that tells nothing."""

        on.crew.sessions._renew = deaf  # type: ignore[method-assign]
        await on.cancel(job_id)
        assert held.stopped == []
        on.crew.keeper.beat()
        assert (await on.ended(job_id)).state is State.cancelled


async def test_cancels_are_heard_at_once_under_a_new_session_too() -> None:
    """The hint's topic names the session: after a change the worker listens to the new one."""
    held = Held()
    async with stage(held.app) as on:
        await on.work()
        on.crew.sessions.lose(session_of(on))
        job_id = await on.submit("hold")
        await eventually(lambda: held.began == [1], "it runs under the new session")
        await on.cancel(job_id)
        assert (await on.ended(job_id)).state is State.cancelled


async def test_cancels_are_heard_at_once_after_an_exchange_of_sessions() -> None:
    """The same when the old session lives on beside the new one."""
    held = Held()
    async with stage(held.app) as on:
        await on.work()
        old = session_of(on)
        known = await on.submit("hold")
        await eventually(lambda: held.began == [1], "one runs under the old session")
        on.crew.sessions.retire(old)
        await eventually(lambda: on.crew.sessions.current not in (None, old), "there is another session")
        job_id = await on.submit("hold")
        await eventually(lambda: held.began == [1, 1], "one runs under the new session")
        await on.cancel(job_id)
        assert (await on.ended(job_id)).state is State.cancelled
        held.go.set()
        assert (await on.ended(known)).attempt == 1


async def test_jobs_leased_under_a_session_lost_meanwhile_are_left_alone() -> None:
    """The session was given up while the lease was on its way: its jobs run once, under the next session."""
    held = Held()
    async with stage(held.app) as on:
        worker = await on.work()
        lease, replied, go = on.engine.lease, asyncio.Event(), asyncio.Event()

        async def late_reply(request: LeaseRequest) -> list[Assignment]:
            leased = await lease(request)
            if leased and not replied.is_set():
                replied.set()
                await go.wait()
            return leased

        on.engine.lease = late_reply  # type: ignore[method-assign]
        job_id = await on.submit("hold")
        await replied.wait()
        on.crew.sessions.lose(session_of(on))
        go.set()
        await eventually(lambda: held.began == [2], "it runs under the new session")
        held.go.set()
        assert (await on.ended(job_id)).attempt == 2
        await eventually(lambda: worker.snapshot().outcomes == {"succeeded": 1}, "it is counted once")


async def test_a_lease_whose_reply_was_lost_strands_no_job() -> None:
    """The engine may have leased jobs that nobody runs: the session is exchanged, and closed when its own work ends."""
    held = Held()
    async with stage(held.app, scripted()) as on:
        worker = await on.work()
        old = session_of(on)
        known = await on.submit("hold")
        await eventually(lambda: held.began == [1], "the known job runs")
        assert isinstance(on.engine, FaultyEngine)
        faulty = on.engine
        moments: tuple[Moment, ...] = ("after",)
        lost = iter(moments)
        faulty.plan = lambda method, nth: next(lost, None) if method == "lease" else None
        stranded = await on.submit("hold")
        await eventually(lambda: on.crew.sessions.current not in (None, old), "there is another session")
        assert (await on.job(stranded)).state is State.running, "leased, and nobody knows of it"
        assert old in on.crew.sessions.held, "the old one is still renewed"
        held.go.set()
        assert (await on.ended(known)).attempt == 1
        job = await on.ended(stranded)
        assert (job.state, job.attempt, job.crashes) == (State.succeeded, 2, 1)
        assert worker.snapshot().outcomes == {"succeeded": 2}


async def test_a_session_is_opened_though_the_engine_was_away_at_first() -> None:
    """A worker that starts before its engine waits for it."""
    held = Held()
    held.go.set()
    async with stage(held.app, scripted(publish=["before", "after"], announce=["before", "after", "before"])) as on:
        await on.work()
        assert await on.output("hold") == 1


async def test_leasing_goes_on_after_the_engine_was_away() -> None:
    """An engine that did not answer is asked again; nothing was leased."""
    held = Held()
    held.go.set()
    async with stage(held.app, scripted(lease=["before"] * 4)) as on:
        await on.work()
        assert await on.output("hold") == 1

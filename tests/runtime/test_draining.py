"""Leaving: what runs may finish, the rest goes back to its place at no cost, and nothing is left open."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
from runtime_support import PATIENCE_S, eventually, stage

from ropeway.domain.errors import LeaseLost
from ropeway.domain.job import DEFAULT_TENANT, NewJob
from ropeway.domain.lease import Commit
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.engines.memory import MemoryEngine
from ropeway.runtime import App, Context, ResourceFailed, WorkerOptions, given, run_worker
from ropeway.testing import FaultyEngine, scripted

ONCE = Retry(max_attempts=1)


async def test_what_runs_finishes_and_what_waits_stays() -> None:
    """A drain leases no more and waits for running jobs; then the session is closed."""
    app = App()
    began, go = asyncio.Event(), asyncio.Event()

    @app.task
    async def work() -> str:
        began.set()
        await go.wait()
        return "done"

    async with stage(app) as on:
        worker = await on.work(concurrency=1)
        running, waiting = await on.submit("work"), await on.submit("work")
        await began.wait()
        worker.drain()
        await eventually(lambda: worker.snapshot().state == "draining", "it drains")
        go.set()
        await worker.stop()
        assert ((await on.job(running)).state, (await on.job(running)).output) == (State.succeeded, '"done"')
        assert (await on.job(waiting)).state is State.queued
        assert await on.engine.workers() == []
        assert worker.snapshot().state == "ended"


async def test_what_does_not_finish_is_released_without_costing_an_attempt() -> None:
    """Back in its queue as if it had not run; the next worker's attempt has the same number."""
    app = App()
    stopped: list[tuple[str, str | None]] = []
    began: list[str] = []

    @app.task(retry=ONCE, timeout=3600)
    async def looping(*, ctx: Context = given) -> AsyncIterator[str]:
        began.append("looping")
        try:
            yield f"attempt {ctx.attempt}"
            if len(stopped) < 2:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(("looping", ctx.stop_reason))
            raise

    @app.task(retry=ONCE)
    def blocking(*, ctx: Context = given) -> str:
        began.append("blocking")
        if len(stopped) < 2:
            while not ctx.cancelled:
                threading.Event().wait(0.001)
            stopped.append(("blocking", ctx.stop_reason))
            ctx.check_cancelled()
        return f"attempt {ctx.attempt}"

    async with stage(app) as on:
        worker = await on.work(grace_s=0.0)
        jobs = [await on.submit("looping"), await on.submit("blocking")]
        await eventually(lambda: len(began) == 2, "both run")
        await worker.stop()
        assert sorted(stopped) == [("blocking", "drain"), ("looping", "drain")]
        for job_id in jobs:
            job = await on.job(job_id)
            assert (job.state, job.attempt, job.crashes, job.runs) == (State.queued, 0, 0, 1)
            assert [data["reason"] for data in await on.data(job_id, "job.retrying")] == ["released"]
        assert worker.snapshot().outcomes == {"queued": 2}
        await on.work()
        for job_id in jobs:
            ended = await on.ended(job_id)
            assert (ended.state, ended.output, ended.attempt) == (State.succeeded, '"attempt 1"', 1)


async def test_a_client_s_cancel_is_still_a_cancel_while_draining() -> None:
    """The two never change places."""
    app = App()
    began = asyncio.Event()

    @app.task
    async def wait() -> None:
        began.set()
        await asyncio.Event().wait()

    async with stage(app) as on:
        worker = await on.work()
        job_id = await on.submit("wait")
        await began.wait()
        worker.drain()
        await eventually(lambda: worker.snapshot().state == "draining", "it drains")
        await on.cancel(job_id)
        assert (await on.ended(job_id)).state is State.cancelled
        await worker.stop()


async def test_the_second_wish_ends_it_now() -> None:
    """No grace: everything is released at once, code that does not stop is left behind."""
    app = App()
    release = threading.Event()
    began: list[str] = []

    @app.task
    async def polite() -> None:
        began.append("polite")
        await asyncio.Event().wait()

    @app.task
    def deaf() -> None:
        began.append("deaf")
        release.wait(PATIENCE_S)

    async with stage(app) as on:
        worker = await on.work(grace_s=3600.0)
        jobs = [await on.submit("polite"), await on.submit("deaf")]
        await eventually(lambda: len(began) == 2, "both run")
        worker.drain()
        await eventually(lambda: worker.snapshot().state == "draining", "it drains")
        worker.end_now()
        await worker.stop()
        assert [(await on.job(job_id)).state for job_id in jobs] == [State.queued, State.queued]
        assert [(await on.job(job_id)).attempt for job_id in jobs] == [0, 0]
        release.set()


async def test_a_job_leased_while_the_drain_began_is_not_lost() -> None:
    """A lease in flight comes in after the wish: it runs within the grace, or is released."""
    app = App()

    @app.task
    async def work() -> int:
        return 1

    async with stage(app) as on:
        worker = await on.work()
        lease, leasing, go = on.engine.lease, asyncio.Event(), asyncio.Event()

        async def slow_lease(request: object) -> object:
            leasing.set()
            await go.wait()
            return await lease(request)  # type: ignore[arg-type]

        on.engine.lease = slow_lease  # type: ignore[method-assign,assignment]
        job_id = await on.submit("work")
        await leasing.wait()
        worker.drain()
        await eventually(lambda: worker.snapshot().state == "draining", "it drains")
        go.set()
        await worker.stop()
        assert (await on.job(job_id)).state is State.succeeded


async def test_outcomes_reach_the_engine_before_the_worker_leaves() -> None:
    """A commit that must be repeated is still repeated."""
    app = App()

    @app.task
    async def work() -> int:
        return 1

    async with stage(app, scripted(commit=["before", "after", "before"])) as on:
        worker = await on.work()
        job_id = await on.submit("work")
        assert isinstance(on.engine, FaultyEngine)
        calls = on.engine.calls
        await eventually(lambda: calls["commit"] > 0, "it has an outcome")
        await worker.stop()
        assert (await on.job(job_id)).state is State.succeeded


async def test_a_worker_does_not_leave_before_its_outcomes_are_known() -> None:
    """Nothing runs any more, but the engine has not answered yet: the session stays open for it."""
    app = App()

    @app.task
    async def work() -> int:
        return 1

    async with stage(app) as on:
        worker = await on.work()
        commit, asked, go = on.engine.commit, asyncio.Event(), asyncio.Event()

        async def slow_commit(batch: Sequence[Commit]) -> list[State | LeaseLost]:
            asked.set()
            await go.wait()
            return await commit(batch)

        on.engine.commit = slow_commit  # type: ignore[method-assign]
        job_id = await on.submit("work")
        await asked.wait()
        worker.drain()
        for _ in range(100):
            await asyncio.sleep(0)
        assert worker.snapshot().state == "draining"
        go.set()
        await worker.stop()
        assert ((await on.job(job_id)).state, (await on.job(job_id)).crashes) == (State.succeeded, 0)


async def test_cancelling_the_worker_s_own_task_releases_its_jobs() -> None:
    """Whoever runs the worker in a loop of its own and loses patience still loses no job."""
    app = App()
    began = asyncio.Event()

    @app.task
    async def wait() -> None:
        began.set()
        await asyncio.Event().wait()

    async with stage(app) as on:
        await on.work(grace_s=3600.0)
        job_id = await on.submit("wait")
        await began.wait()
        on.runs[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await on.runs[0]
        job = await on.job(job_id)
        assert (job.state, job.attempt, job.crashes) == (State.queued, 0, 0)


async def test_a_broken_part_stops_the_worker_and_says_so() -> None:
    """A fault of ours ends the worker with its error, and its jobs go back."""
    app = App()
    began = asyncio.Event()

    @app.task
    async def wait() -> None:
        began.set()
        await asyncio.Event().wait()

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("wait")
        await began.wait()

        async def broken(request: object) -> object:
            raise ZeroDivisionError("a bug")

        on.engine.lease = broken  # type: ignore[method-assign,assignment]
        on.crew._groups[0].hungry = True
        on.crew.poller.poke()
        with pytest.raises(ZeroDivisionError):
            await on.runs[0]
        assert (await on.job(job_id)).state is State.queued


async def test_a_resource_that_fails_later_stops_the_worker() -> None:
    """It could not run this task anyway: the job goes back, and the worker ends with the reason."""
    app = App()

    @app.resource
    def model() -> str:
        raise OSError("no such file: weights.bin")

    @app.task(queue="gpu")
    async def infer(model: str) -> str:
        return model

    @app.task(queue="cpu")
    async def plain() -> int:
        return 1

    async with stage(app) as on:
        worker = await on.work(queues=("cpu",))
        await on.engine.submit([NewJob("job_x", DEFAULT_TENANT, "cpu", "infer", "{}")])
        with pytest.raises(ResourceFailed, match="resource 'model' failed to open: OSError: no such file"):
            await on.runs[0]
        job = await on.job("job_x")
        assert (job.state, job.attempt) == (State.queued, 0)
        assert worker.snapshot().state == "ended"


async def test_sigterm_drains_the_worker_of_this_process() -> None:
    """`run_worker` listens to signals where it may, and takes its handlers away after."""
    app = App()
    began, go = asyncio.Event(), asyncio.Event()

    @app.task
    async def work() -> str:
        began.set()
        await go.wait()
        return "done"

    engine = MemoryEngine()
    await engine.open()
    await engine.submit([NewJob("job_1", DEFAULT_TENANT, "default", "work", "{}")])
    run = asyncio.create_task(run_worker(app, engine, WorkerOptions()))
    await began.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0)
    go.set()
    await asyncio.wait_for(run, PATIENCE_S)
    (job,) = await engine.get(DEFAULT_TENANT, ["job_1"])
    assert job is not None
    assert job.state is State.succeeded
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    await engine.shut()

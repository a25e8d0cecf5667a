"""Stopping an attempt: a client's cancel, a timeout; code that obeys, and code that does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from runtime_support import PATIENCE_S, Stage, eventually, stage

from ropeway.domain.errors import JobError
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context, executor, given
from ropeway.runtime.attempt import Reason, Session

ONCE = Retry(max_attempts=1)
SHORT_S = 0.001  # a timeout that is to pass at once


class Signs:
    """What tasks tell the test: that they began, what stopped them, that they cleaned up."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.release = threading.Event()
        self.told: list[Any] = []

    async def wait_for(self, event: threading.Event, name: str) -> None:
        await eventually(event.is_set, name)


async def begin_and_cancel(on: Stage, signs: Signs, task: str) -> str:
    """Start a job of this task, and cancel it while it runs."""
    job_id = await on.submit(task)
    await signs.wait_for(signs.began, "the task runs")
    await on.cancel(job_id, "changed my mind")
    return job_id


async def begin_and_time_out(on: Stage, signs: Signs, task: str) -> str:
    """Start a job of this task; its time is over once it runs: a thread may begin later than any timer."""
    job_id = await on.submit(task)
    await signs.wait_for(signs.began, "the task runs")
    (run,) = on.crew.executor.running
    on.crew.executor.ask(run, Reason.timeout)
    return job_id


async def test_a_running_async_task_is_cancelled_at_once() -> None:
    """The client's wish reaches the task as CancelledError where it awaits; it may clean up; the job is cancelled."""
    app = App()
    signs = Signs()

    @app.task
    async def wait(*, ctx: Context = given) -> None:
        signs.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            signs.told.append((ctx.cancelled, ctx.stop_reason))
            await asyncio.sleep(0)
            signs.told.append("cleaned up")

    async with stage(app) as on:
        await on.work()
        job = await on.ended(await begin_and_cancel(on, signs, "wait"))
        assert (job.state, job.cancel_reason, job.attempt) == (State.cancelled, "changed my mind", 1)
        assert signs.told == [(True, "cancel"), "cleaned up"]


async def test_a_cancelled_generator_is_closed_and_keeps_what_it_made() -> None:
    """Partial output stays with the cancelled job, and in its log."""
    app = App()
    signs = Signs()

    @app.task
    async def words() -> AsyncIterator[str]:
        try:
            yield "one "
            yield "two"
            signs.began.set()
            await asyncio.Event().wait()
        finally:
            signs.told.append("closed")

    async with stage(app) as on:
        await on.work()
        job_id = await begin_and_cancel(on, signs, "words")
        job = await on.ended(job_id)
        assert (job.state, job.output, signs.told) == (State.cancelled, '"one two"', ["closed"])
        assert "".join(data["delta"] for data in await on.data(job_id, "output.delta")) == "one two"


async def test_a_blocking_task_is_asked_and_stops_itself() -> None:
    """A thread cannot be interrupted: it sees `ctx.cancelled`, and `check_cancelled` raises."""
    app = App()
    signs = Signs()

    @app.task
    def grind(*, ctx: Context = given) -> None:
        signs.began.set()
        while not ctx.cancelled:
            signs.release.wait(0.001)
        signs.told.append(ctx.stop_reason)
        ctx.check_cancelled()
        signs.told.append("not reached")

    async with stage(app) as on:
        await on.work()
        job = await on.ended(await begin_and_cancel(on, signs, "grind"))
        assert (job.state, signs.told) == (State.cancelled, ["cancel"])


async def test_a_blocking_generator_is_stopped_at_its_next_item() -> None:
    """It needs no look at the context: between two items it is closed."""
    app = App()
    signs = Signs()

    @app.task
    def count() -> Iterator[int]:
        try:
            for i in range(10**9):
                yield i
                signs.began.set()
                signs.release.wait(0.001)
        finally:
            signs.told.append("closed")

    async with stage(app) as on:
        await on.work()
        job = await on.ended(await begin_and_cancel(on, signs, "count"))
        assert (job.state, signs.told) == (State.cancelled, ["closed"])
        assert msgspec.json.decode(job.output or "")[0] == 0


async def test_a_cancel_wins_over_what_the_task_still_returns() -> None:
    """A task that swallows the cancel does not commit a success: the first durable transition has won."""
    app = App()
    signs = Signs()

    @app.task
    async def stubborn() -> str:
        signs.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done all the same"
        return "not reached"

    async with stage(app) as on:
        await on.work()
        job = await on.ended(await begin_and_cancel(on, signs, "stubborn"))
        assert (job.state, job.output) == (State.cancelled, '"done all the same"')


async def test_a_cancel_before_the_first_step_frees_the_slot_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that was asked to stop before its code began never begins, and leaves nothing behind."""
    monkeypatch.setattr(executor, "_EAGER", {})  # from 3.12 on its code begins at once, and this cannot happen
    app = App()
    began: list[str] = []

    @app.task
    async def work() -> None:
        began.append("work")

    async with stage(app) as on:
        worker = await on.work()
        job_id = await on.submit("work")
        start = on.crew.executor.start

        def start_and_ask(assignment: Any, session: Any) -> None:
            start(assignment, session)
            (run,) = on.crew.executor.running
            on.crew.executor.ask(run, Reason.cancel)

        on.crew.poller._start = start_and_ask
        job = await on.ended(job_id)
        assert (job.state, began) == (State.cancelled, [])
        assert worker.snapshot().running == 0


async def test_a_lost_lease_beats_an_earlier_wish() -> None:
    """Asked to stop for a cancel, and then its lease is lost while it cleans up: nothing is committed."""
    app = App()
    signs = Signs()
    cleaning, go = asyncio.Event(), asyncio.Event()

    @app.task
    async def wait() -> None:
        signs.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await go.wait()

    async with stage(app) as on:
        worker = await on.work()
        await begin_and_cancel(on, signs, "wait")
        await cleaning.wait()
        (run,) = on.crew.executor.running
        on.crew.executor.ask(run, Reason.lost)
        on.crew.executor.ask(run, Reason.cancel)
        go.set()
        await eventually(lambda: worker.snapshot().outcomes == {"lost": 1}, "it is given up")


async def test_a_task_out_of_time_fails_with_its_own_code() -> None:
    """`timeout`, which may be tried again; here it was the last attempt."""
    app = App()

    @app.task(timeout=SHORT_S, retry=ONCE)
    async def slow() -> AsyncIterator[str]:
        yield "so far"
        await asyncio.Event().wait()

    async with stage(app) as on:
        await on.work()
        job = await on.run("slow")
        error = msgspec.json.decode(job.error or "", type=JobError)
        assert (error.code, error.message, error.retryable) == ("timeout", "ran longer than 0.001 s", True)
        assert job.output == '"so far"'


async def test_a_timeout_is_tried_again_by_the_policy() -> None:
    """Each attempt has the whole time; the second may be quicker."""
    app = App()

    @app.task(timeout=0.05, retry=Retry(max_attempts=2, base_s=0))
    async def slow_at_first(*, ctx: Context = given) -> int:
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        return ctx.attempt

    async with stage(app) as on:
        await on.work()
        assert await on.output("slow_at_first") == 2


async def test_a_result_after_the_timeout_does_not_count() -> None:
    """Also when the task caught the cancel and went on to return."""
    app = App()

    @app.task(timeout=SHORT_S, retry=ONCE)
    async def swallows() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"
        return "never"

    async with stage(app) as on:
        await on.work()
        assert (await on.error("swallows")).code == "timeout"


async def test_a_blocking_task_out_of_time_is_told_why() -> None:
    """`stop_reason` is `timeout`, not `cancel`: it may want to save what it has."""
    app = App()
    signs = Signs()

    @app.task(timeout=PATIENCE_S, retry=ONCE)
    def grind(*, ctx: Context = given) -> str:
        signs.began.set()
        while not ctx.cancelled:
            signs.release.wait(0.001)
        signs.told.append(ctx.stop_reason)
        return "late"

    async with stage(app) as on:
        await on.work()
        assert (await on.failure(await begin_and_time_out(on, signs, "grind"))).code == "timeout"
        assert signs.told == ["timeout"]


async def test_a_thread_that_does_not_stop_is_given_up_and_its_slot_stays_taken() -> None:
    """The job's fate is decided without it; the thread is counted as abandoned until it ends, then used again."""
    app = App()
    signs = Signs()

    @app.task(timeout=PATIENCE_S, retry=ONCE)
    def deaf(*, ctx: Context = given) -> str:
        signs.began.set()
        assert signs.release.wait(PATIENCE_S)
        try:
            ctx.emit("too late")
        except asyncio.CancelledError:
            signs.told.append("refused")
        return "too late"

    @app.task
    def quick() -> int:
        return 1

    async with stage(app) as on:
        worker = await on.work(threads=1, cancel_grace_s=0.0)
        assert (await on.failure(await begin_and_time_out(on, signs, "deaf"))).code == "timeout"
        seen = worker.snapshot()
        assert (seen.threads_abandoned, seen.threads_busy, seen.running) == (1, 1, 1)
        waiting = await on.submit("quick")
        assert (await on.job(waiting)).state is State.queued
        signs.release.set()
        assert (await on.ended(waiting)).state is State.succeeded
        seen = worker.snapshot()
        assert (seen.threads_abandoned, seen.running, signs.told) == (0, 0, ["refused"])


async def test_an_async_task_that_ignores_its_cancel_is_given_up() -> None:
    """The client hears of the end after the grace, not when the code deigns to stop."""
    app = App()
    signs = Signs()

    @app.task
    async def deaf() -> None:
        signs.began.set()
        while not signs.release.is_set():
            try:
                await asyncio.sleep(0.002)
            except asyncio.CancelledError:
                signs.told.append("heard it")

    async with stage(app) as on:
        worker = await on.work(cancel_grace_s=0.01)
        job = await on.ended(await begin_and_cancel(on, signs, "deaf"))
        assert (job.state, signs.told, worker.snapshot().running) == (State.cancelled, ["heard it"], 1)
        signs.release.set()
        await eventually(lambda: worker.snapshot().running == 0, "the task ends in its own time")


async def test_a_task_that_cancels_itself_has_failed() -> None:
    """A CancelledError that nobody asked for is an error like any other, never a client's cancel."""
    app = App()

    @app.task(retry=ONCE)
    async def confused() -> None:
        raise asyncio.CancelledError

    async with stage(app) as on:
        await on.work()
        error = await on.error("confused")
        assert (error.code, error.message) == ("task_error", "the task cancelled itself")


async def test_a_step_on_a_thread_does_not_hold_up_a_cancel() -> None:
    """The await is cancelled; the step goes on to its own end and keeps its thread till then."""
    app = App()
    signs = Signs()

    @app.task
    async def outer(*, ctx: Context = given) -> None:
        def step() -> None:
            signs.began.set()
            assert signs.release.wait(PATIENCE_S)

        await ctx.to_thread(step)

    async with stage(app) as on:
        worker = await on.work()
        job = await on.ended(await begin_and_cancel(on, signs, "outer"))
        assert (job.state, worker.snapshot().threads_busy) == (State.cancelled, 1)
        signs.release.set()
        await eventually(lambda: worker.snapshot().threads_busy == 0, "the step ends")


@pytest.mark.parametrize("loop_task", [True, False], ids=["async", "blocking"])
async def test_an_append_tells_of_a_cancel_whose_hint_was_lost(loop_task: bool) -> None:
    """Whoever streams learns at its next append, even when no hint comes."""
    app = App()
    signs = Signs()

    @app.task
    async def stream(*, ctx: Context = given) -> None:
        for i in range(10**9):
            ctx.emit(i)
            signs.began.set()
            await asyncio.sleep(0)

    @app.task
    def stream_in_thread(*, ctx: Context = given) -> None:
        for i in range(10**9):
            ctx.emit(i)
            signs.began.set()
            ctx.check_cancelled()

    async with stage(app) as on:
        await on.work()

        async def deaf(session: Session) -> None:
            """A hint that tells nothing."""

        on.crew.sessions._renew = deaf  # type: ignore[method-assign]
        job = await on.ended(await begin_and_cancel(on, signs, "stream" if loop_task else "stream_in_thread"))
        assert job.state is State.cancelled

"""Stopping jobs of a batch: cancel, timeout, a lost lease, a drain; each for itself, the others untouched."""

from __future__ import annotations

import asyncio
import threading

import pytest
from runtime_support import Stage, eventually, stage

from ropeway import Batch
from ropeway.domain.errors import JobError
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context
from ropeway.runtime.attempt import Reason
from ropeway.runtime.run import Run

ONCE = Retry(max_attempts=1)
FOREVER_S = 3600.0


class Gate:
    """Where calls stand until the test lets them go on, on the loop or on a thread."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.stopped: list[str] = []
        self.opened = threading.Event()

    async def pass_async(self, n: list[int]) -> list[int]:
        self.calls.append(n)
        try:
            await eventually(self.opened.is_set, "the gate is opened")
        except asyncio.CancelledError:
            self.stopped.append("cancelled")
            raise
        return n

    def pass_blocking(self, n: list[int]) -> list[int]:
        self.calls.append(n)
        self.opened.wait()
        return n

    async def begun(self, *calls: list[int]) -> None:
        await eventually(lambda: self.calls == list(calls), f"these calls begin: {calls}")


def gated(app: App, form: str, batch: Batch, **settings: object) -> Gate:
    """The task `work`, whose calls stand at a gate."""
    gate = Gate()

    async def on_loop(n: list[int]) -> list[int]:
        return await gate.pass_async(n)

    def blocking(n: list[int]) -> list[int]:
        return gate.pass_blocking(n)

    app.task(batch=batch, name="work", **settings)(on_loop if form == "async" else blocking)  # type: ignore[call-overload]
    return gate


def run_of(on: Stage, job_id: str) -> Run:
    (run,) = (run for run in on.crew.executor.running if run.assignment.job_id == job_id)
    return run


FORMS = pytest.mark.parametrize("form", ["async", "blocking"])


@FORMS
async def test_one_cancelled_while_its_batch_runs_is_cancelled_when_the_call_returns(form: str) -> None:
    """Its result was made, and nobody wants it; the others have theirs."""
    app = App()
    gate = gated(app, form, Batch(max_size=2))
    async with stage(app) as on:
        first, second = await on.submit("work", n=1), await on.submit("work", n=2)
        await on.work()
        await gate.begun([1, 2])
        await on.cancel(first)
        await eventually(lambda: run_of(on, first).reason is Reason.cancel, "the worker hears of it")
        assert (await on.job(first)).state is State.running
        gate.opened.set()
        assert (await on.ended(first)).state is State.cancelled
        assert (await on.ended(second)).output == "2"
        assert gate.stopped == []


async def test_when_all_are_cancelled_the_call_is() -> None:
    """Nobody wants what it would come to."""
    app = App()
    gate = gated(app, "async", Batch(max_size=2))
    async with stage(app) as on:
        job_ids = [await on.submit("work", n=n) for n in (1, 2)]
        await on.work()
        await gate.begun([1, 2])
        for job_id in job_ids:
            await on.cancel(job_id)
        assert {(await on.ended(job_id)).state for job_id in job_ids} == {State.cancelled}
        assert gate.stopped == ["cancelled"]


async def test_blocking_code_sees_who_is_cancelled() -> None:
    """By each job's context: it may leave that one out, or stop when all are."""
    app = App()
    seen: list[list[bool]] = []
    began = threading.Event()

    @app.task(batch=Batch(max_size=2))
    def work(n: list[int], ctxs: list[Context]) -> list[int]:
        began.set()
        while not all(ctx.cancelled for ctx in ctxs):
            flags = [ctx.cancelled for ctx in ctxs]
            if not seen or seen[-1] != flags:
                seen.append(flags)
        return n

    async with stage(app) as on:
        first, second = await on.submit("work", n=1), await on.submit("work", n=2)
        await on.work()
        await eventually(began.is_set, "the call begins")
        await on.cancel(first)
        await eventually(lambda: seen[-1:] == [[True, False]], "the code sees that one is cancelled")
        await on.cancel(second)
        assert {(await on.ended(job_id)).state for job_id in (first, second)} == {State.cancelled}


async def test_one_cancelled_while_it_waits_never_runs() -> None:
    """It is cancelled at once, though the call before it goes on."""
    app = App()
    gate = gated(app, "blocking", Batch(max_size=1))
    async with stage(app) as on:
        running, waiting = await on.submit("work", n=1), await on.submit("work", n=2)
        await on.work()
        await eventually(lambda: on.workers[0].snapshot().batches["work"].waiting == 1, "one waits")
        await on.cancel(waiting)
        assert (await on.ended(waiting)).state is State.cancelled
        gate.opened.set()
        assert (await on.ended(running)).output == "1"
        assert gate.calls == [[1]]


@FORMS
async def test_a_job_that_is_out_of_time_fails_alone(form: str) -> None:
    """Each has its own timeout, from the start of the call; who has none, or a longer one, gets his result."""
    app = App()
    gate = gated(app, form, Batch(max_size=2), timeout=FOREVER_S, retry=ONCE)
    async with stage(app) as on:
        first, second = await on.submit("work", n=1), await on.submit("work", n=2)
        await on.work()
        await gate.begun([1, 2])
        assert all(run.timer is not None for run in on.crew.executor.running)
        on.crew.executor.ask(run_of(on, first), Reason.timeout)
        gate.opened.set()
        assert (await on.failure(first)).code == "timeout"
        assert (await on.ended(second)).output == "2"


async def test_a_call_out_of_time_for_all_is_cancelled_and_not_halved() -> None:
    """Halves would only take the time again: each job fails by its timeout, and is retried by its own policy."""
    app = App()
    gate = gated(app, "async", Batch(max_size=2), timeout=0.001, retry=ONCE)
    async with stage(app) as on:
        job_ids = [await on.submit("work", n=n) for n in (1, 2)]
        await on.work()
        faults: list[JobError] = [await on.failure(job_id) for job_id in job_ids]
        assert {fault.code for fault in faults} == {"timeout"}
        assert (len(gate.calls) <= 1, gate.stopped in ([], ["cancelled"])) == (True, True)
        assert on.workers[0].snapshot().batches["work"].splits == 0


async def test_time_in_the_group_is_not_the_jobs_time() -> None:
    """A job's timeout begins with its call: that it waited for others is not its doing."""
    app = App()
    gate = gated(app, "blocking", Batch(max_size=1), timeout=FOREVER_S)
    async with stage(app) as on:
        first, second = await on.submit("work", n=1), await on.submit("work", n=2)
        await on.work()
        await eventually(lambda: on.workers[0].snapshot().batches["work"].waiting == 1, "one waits")
        assert (run_of(on, first).timer is None, run_of(on, second).timer is None) == (False, True)
        gate.opened.set()
        await on.ended(second)


async def test_a_job_that_blocking_code_does_not_let_go_is_given_up_alone() -> None:
    """After the grace it is cancelled, while its batch runs on; the thread is given up with the last of them."""
    app = App()
    gate = gated(app, "blocking", Batch(max_size=2))
    async with stage(app) as on:
        first, second = await on.submit("work", n=1), await on.submit("work", n=2)
        await on.work(cancel_grace_s=0.0)
        await gate.begun([1, 2])
        await on.cancel(first)
        assert (await on.ended(first)).state is State.cancelled
        assert on.workers[0].snapshot().threads_abandoned == 0
        await on.cancel(second)
        assert (await on.ended(second)).state is State.cancelled
        assert on.workers[0].snapshot().threads_abandoned == 1
        gate.opened.set()
        await eventually(lambda: on.workers[0].snapshot().threads_abandoned == 0, "the thread is back")
        await eventually(lambda: on.workers[0].snapshot().running == 0, "nothing runs")


async def test_a_drain_gives_back_what_waits_and_finishes_what_runs() -> None:
    """A job that only waited for its batch is another worker's at once, its attempt given back."""
    app = App()
    gate = gated(app, "blocking", Batch(max_size=2, max_wait=FOREVER_S))
    async with stage(app) as on:
        job_ids = [await on.submit("work", n=n) for n in (1, 2, 3)]
        await on.work()
        await eventually(lambda: on.workers[0].snapshot().batches["work"].waiting == 1, "one waits")
        on.workers[0].drain()
        back = await on.when(job_ids[2], lambda job: job.state is State.queued, "it is given back")
        assert back.attempt == 0
        gate.opened.set()
        await on.runs[0]
        assert [(await on.job(job_id)).state for job_id in job_ids] == [State.succeeded] * 2 + [State.queued]
        assert gate.calls == [[1, 2]]


async def test_a_drain_that_has_no_more_time_gives_back_all() -> None:
    """The call is cancelled, and each of its jobs goes back to its place."""
    app = App()
    gate = gated(app, "async", Batch(max_size=2))
    async with stage(app) as on:
        job_ids = [await on.submit("work", n=n) for n in (1, 2)]
        await on.work(grace_s=0.0)
        await gate.begun([1, 2])
        on.workers[0].drain()
        await on.runs[0]
        jobs = [await on.job(job_id) for job_id in job_ids]
        assert [(job.state, job.attempt) for job in jobs] == [(State.queued, 0)] * 2
        assert gate.stopped == ["cancelled"]


async def test_a_lost_session_takes_those_that_run_and_those_that_wait() -> None:
    """Nothing of them is written any more: they run elsewhere."""
    app = App()
    gate = gated(app, "async", Batch(max_size=2, max_wait=FOREVER_S))
    async with stage(app) as on:
        job_ids = [await on.submit("work", n=n) for n in (1, 2, 3)]
        await on.work()
        await eventually(lambda: on.workers[0].snapshot().batches["work"].waiting == 1, "one waits")
        session = on.crew.sessions.current
        assert session is not None
        on.crew.sessions.lose(session)
        await eventually(lambda: gate.stopped == ["cancelled"], "the call is cancelled")
        await eventually(lambda: not session.attempts, "nothing is held any more")
        assert on.workers[0].snapshot().outcomes == {"lost": 3}
        for job_id in job_ids:
            assert (await on.job(job_id)).state is not State.succeeded

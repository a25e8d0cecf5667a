"""Snoozing: an attempt ends itself for its job to run again later, and pays nothing for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from runtime_support import an_attempt, eventually, stage

from ropeway.domain.errors import JobError
from ropeway.domain.job import Job, JobOptions
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context, given
from ropeway.runtime.attempt import Reason, Snooze
from ropeway.runtime.judge import judge_failure
from ropeway.runtime.snoozing import DELAY_LIMIT_S, delay_ms_of

ONCE = Retry(max_attempts=1)


class Nap:
    """Snoozes at the first run of its task, and counts runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, ctx: Context) -> int:
        self.runs += 1
        if self.runs == 1:
            ctx.snooze(60, reason="the batch is not done")
        return ctx.attempt


def async_ways(app: App, nap: Nap) -> None:
    @app.task(retry=ONCE)
    async def plain(*, ctx: Context = given) -> int:
        return nap(ctx)

    @app.task(retry=ONCE)
    async def stream(*, ctx: Context = given) -> AsyncIterator[int]:
        yield 0
        yield nap(ctx)

    @app.task(retry=ONCE)
    async def from_a_thread(*, ctx: Context = given) -> int:
        return await ctx.to_thread(nap, ctx)

    @app.task(retry=ONCE)
    async def careful(*, ctx: Context = given) -> int:
        try:
            return nap(ctx)
        except Exception as error:
            raise AssertionError("a snooze is no Exception") from error

    @app.task(retry=ONCE)
    async def swallowing(*, ctx: Context = given) -> int:
        try:
            return nap(ctx)
        except BaseException:
            return -1


def blocking_ways(app: App, nap: Nap) -> None:
    @app.task(queue="blocking", retry=ONCE)
    def blocking(*, ctx: Context = given) -> int:
        return nap(ctx)

    @app.task(queue="blocking", retry=ONCE)
    def blocking_stream(*, ctx: Context = given) -> Iterator[int]:
        yield 0
        yield nap(ctx)


def asleep(job: Job) -> bool:
    return job.state is State.scheduled


WAYS = ["plain", "stream", "blocking", "blocking_stream", "from_a_thread", "careful", "swallowing"]


@pytest.mark.parametrize("task", WAYS)
async def test_a_snooze_gives_the_attempt_back(task: str) -> None:
    """The job runs again after the delay, as the same attempt: no retry is spent. Meanwhile it says what for."""
    app, nap = App(), Nap()
    async_ways(app, nap)
    blocking_ways(app, nap)
    async with stage(app) as on:
        await on.work()
        job_id = await on.submit(task)
        job = await on.when(job_id, asleep, "it snoozes")
        assert (job.attempt, job.runs, job.crashes, job.error) == (0, 1, 0, None)
        assert job.run_at_ms == on.clock.now_ms() + 60_000
        assert msgspec.json.decode(job.progress or "") == {"message": "the batch is not done"}
        (told,) = await on.data(job_id, "job.retrying")
        assert told == {
            "reason": "snoozed", "attempt": 1, "run_at_ms": job.run_at_ms, "detail": "the batch is not done",
        }  # fmt: skip
        on.clock.advance(s=60)
        await on.engine.promote(10)
        job = await on.ended(job_id)
        assert (job.state, job.attempt, job.output) == (State.succeeded, 1, "[0,1]" if "stream" in task else "1")
        assert nap.runs == 2


async def test_a_job_may_snooze_so_often_and_then_fails() -> None:
    """`max_snoozes` bounds it; the error says so, and no retry is made of it."""
    app = App()
    runs = []

    @app.task(max_snoozes=2)
    async def endless(*, ctx: Context = given) -> None:
        runs.append(ctx.attempt)
        ctx.snooze(0)

    async with stage(app) as on:
        await on.work()
        error = await on.error("endless")
        assert (error.code, error.retryable, error.attempt) == ("snoozed_too_often", False, 1)
        assert runs == [1, 1, 1]


async def test_progress_stays_beside_what_it_waits_for() -> None:
    """A snooze with a reason keeps how far the job was; one without leaves all as it was told."""
    app = App()

    @app.task
    async def far(reason: str | None, *, ctx: Context = given) -> None:
        ctx.progress(0.5, step="upload", message="sending")
        ctx.snooze(60, reason=reason)

    async with stage(app) as on:
        await on.work()
        with_reason = await on.when(await on.submit("far", reason="queued there"), asleep, "it snoozes")
        without = await on.when(await on.submit("far", reason=None), asleep, "it snoozes")
    told = {"fraction": 0.5, "step": "upload", "message": "sending"}
    assert msgspec.json.decode(with_reason.progress or "") == {**told, "message": "queued there"}
    assert msgspec.json.decode(without.progress or "") == told


async def test_until_is_a_time() -> None:
    """With a zone; one that has passed is now."""
    app = App()

    @app.task
    async def later(at_ms: int, *, ctx: Context = given) -> None:
        ctx.snooze(until=datetime.fromtimestamp(at_ms / 1000, UTC))

    async with stage(app) as on:
        await on.work()
        at_ms = on.clock.now_ms() + 5_000
        job = await on.when(await on.submit("later", at_ms=at_ms), asleep, "it snoozes")
        assert job.run_at_ms == at_ms


@pytest.mark.parametrize(
    ("seconds", "until", "said"),
    [
        (None, None, "seconds, or a time"),
        (1.0, datetime.now(UTC), "seconds, or a time"),
        (-1.0, None, "0 to"),
        (float("nan"), None, "0 to"),
        (DELAY_LIMIT_S + 1, None, "0 to"),
        (None, datetime(2026, 1, 1), "time zone"),
    ],
)
def test_a_delay_that_is_none_is_refused(seconds: float | None, until: datetime | None, said: str) -> None:
    """In the task's own stack, with what would be right."""
    with pytest.raises(ValueError, match=said):
        delay_ms_of(seconds, until, 0)


def test_a_time_that_has_passed_is_now() -> None:
    """The job runs again at once."""
    now = datetime.now(UTC)
    assert delay_ms_of(None, now - timedelta(hours=1), round(now.timestamp() * 1000)) == 0


@pytest.mark.parametrize(
    ("reason", "kind"),
    [(None, "snooze"), (Reason.drain, "snooze"), (Reason.timeout, "snooze"), (Reason.cancel, "cancelled")],
)
def test_a_cancel_beats_a_snooze_and_nothing_else_does(reason: Reason | None, kind: str) -> None:
    """The attempt had ended itself before it was asked to stop; but a job that nobody wants is not run again."""
    attempt = an_attempt(options=JobOptions(timeout_s=1.0))
    attempt.snooze, attempt.reason = Snooze(60_000, "why"), reason
    outcome = judge_failure(attempt, asyncio.CancelledError(), '"so far"', lambda: 0.0)
    assert (outcome.kind, outcome.output) == (kind, '"so far"')
    if kind == "snooze":
        assert (outcome.delay_ms, outcome.detail) == (60_000, "why")


async def test_one_that_was_asked_to_stop_cannot_snooze_out_of_it() -> None:
    """Out of time is out of time: the snooze raises CancelledError, and the attempt fails as it would have."""
    app = App()

    @app.task(timeout=0.01, retry=ONCE)
    async def slow(*, ctx: Context = given) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ctx.snooze(60)

    async with stage(app) as on:
        await on.work()
        error: JobError = await on.error("slow")
        assert error.code == "timeout"


async def test_a_snooze_at_a_drain_waits_its_time() -> None:
    """A task that snoozes when its worker goes is not run again at once."""
    app = App()

    @app.task
    async def leaving(*, ctx: Context = given) -> None:
        ctx.emit("here")
        try:
            await asyncio.Event().wait()
        finally:
            ctx.snooze(60)

    async with stage(app) as on:
        worker = await on.work(grace_s=0)
        job_id = await on.submit("leaving")
        await on.when(job_id, lambda job: job.first_output_at_ms is not None, "it runs")
        await worker.stop()
        job = await on.job(job_id)
        assert (job.state, job.attempt) == (State.scheduled, 0)


async def test_a_cancelled_job_does_not_snooze() -> None:
    """Asked to stop, it ends cancelled with what it had made."""
    app = App()
    began = asyncio.Event()

    @app.task
    async def wanted(*, ctx: Context = given) -> None:
        ctx.emit("half")
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ctx.snooze(60)

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("wanted")
        await eventually(began.is_set, "it runs")
        await on.cancel(job_id)
        job = await on.ended(job_id)
        assert (job.state, job.output) == (State.cancelled, '"half"')

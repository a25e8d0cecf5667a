"""What becomes of an attempt that failed: tried again by the policy, with full jitter, or failed for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from runtime_support import an_attempt, stage

from ropeway.domain.errors import Fail, InputInvalid, JobError, RetryAfter, TaskFault
from ropeway.domain.job import Job, JobOptions
from ropeway.domain.lease import Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context, given, judge
from ropeway.runtime.attempt import Reason
from ropeway.runtime.coding import OutputInvalid
from ropeway.runtime.judge import judge_failure
from ropeway.runtime.verdict import FRAMES, MESSAGE_LIMIT, TRACEBACK_LIMIT

POLICY = JobOptions(retry=Retry(max_attempts=3, base_s=10.0, factor=2.0, cap_s=15.0), timeout_s=5.0)


def judged(error: BaseException, jitter: float = 0.5, reason: Reason | None = None, **changes: Any) -> Outcome:
    attempt = an_attempt(options=POLICY, **changes)
    attempt.reason = reason
    return judge_failure(attempt, error, '"so far"', lambda: jitter)


def error_of(outcome: Outcome) -> JobError:
    return msgspec.json.decode(outcome.error or "", type=JobError)


@pytest.mark.parametrize(
    ("attempt", "jitter", "expected_ms"),
    [(1, 0.5, 5_000), (1, 0.0, 0), (2, 0.5, 7_500), (2, 0.999, 14_985)],
)
def test_the_wait_is_exponential_capped_and_jittered(attempt: int, jitter: float, expected_ms: int) -> None:
    """Ceilings 10 s, then 15 s by the cap; the wait is a uniform part of it."""
    outcome = judged(ValueError("x"), jitter, attempt=attempt)
    assert (outcome.kind, outcome.delay_ms) == ("retry", expected_ms)


@pytest.mark.parametrize(
    ("attempt", "crashes", "kind"), [(2, 0, "retry"), (3, 0, "failed"), (3, 1, "retry"), (4, 1, "failed")]
)
def test_the_last_attempt_fails_the_job(attempt: int, crashes: int, kind: str) -> None:
    """Deaths of workers are not counted: they have a budget of their own."""
    assert judged(ValueError("x"), attempt=attempt, crashes=crashes).kind == kind


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (ValueError("boom"), "task_error", True),
        (Fail("no use"), "task_error", False),
        (Fail("no use", code="provider_error"), "provider_error", False),
        (RetryAfter(3), "task_error", True),
        (RetryAfter(3, code="provider_rate_limited"), "provider_rate_limited", True),
        (TaskFault("odd", code="provider_error"), "provider_error", True),
        (MemoryError(), "out_of_memory", True),
        (InputInvalid("n: bad"), "input_invalid", False),
        (OutputInvalid("no JSON"), "output_invalid", False),
        (asyncio.CancelledError(), "task_error", True),
        (TimeoutError(), "task_error", True),
        (SystemExit(3), "task_error", True),
    ],
)
def test_each_error_has_its_code(error: BaseException, code: str, retryable: bool) -> None:
    """And only those that a repeat may mend are tried again."""
    outcome = judged(error)
    assert (error_of(outcome).code, error_of(outcome).retryable) == (code, retryable)
    assert outcome.kind == ("retry" if retryable else "failed")


@pytest.mark.parametrize(
    ("reason", "kind", "code"),
    [(Reason.cancel, "cancelled", None), (Reason.drain, "release", None), (Reason.timeout, "retry", "timeout")],
)
@pytest.mark.parametrize("error", [asyncio.CancelledError(), RuntimeError("broke while cleaning up")])
def test_why_it_was_stopped_counts_before_what_it_raised(
    error: BaseException, reason: Reason, kind: str, code: str | None
) -> None:
    """A shutdown is never taken for a client's cancel, whatever the code makes of its CancelledError."""
    outcome = judged(error, reason=reason)
    assert outcome.kind == kind
    assert code == (None if outcome.error is None else error_of(outcome).code)


def test_a_provider_s_own_wait_is_a_floor() -> None:
    """Asked to wait for 60 s, it waits for 60 s, though the policy says less."""
    assert judged(RetryAfter(60)).delay_ms == 60_000
    assert judged(RetryAfter(1)).delay_ms == 5_000


def test_partial_output_is_kept() -> None:
    """What had been produced stays with the failed job."""
    assert judged(Fail("no")).output == '"so far"'


def test_the_traceback_shows_the_task_s_own_frames() -> None:
    """At most some, none of Ropeway's; the type is named with its module; the cause is there."""

    class Custom(Exception):
        pass

    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise Custom("outer") from error

    try:
        deep(60)
    except Custom as error:
        told = error_of(judged(error))
    assert told.type is not None and told.type.endswith("Custom")
    assert told.traceback is not None
    assert "KeyError: 'inner'" in told.traceback
    assert len(told.traceback) <= TRACEBACK_LIMIT + 100
    assert told.traceback.count("in deep") <= 2 * FRAMES
    assert str(Path(judge.__file__).parent) not in told.traceback


def test_messages_are_bounded_and_can_be_written() -> None:
    """A megabyte of message, lone surrogates, an exception that cannot print itself: the error is still recorded."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("cannot say")

    assert len(error_of(judged(ValueError("x" * 10**6))).message) == MESSAGE_LIMIT
    assert error_of(judged(ValueError("\ud800"))).message == "?"
    assert error_of(judged(Mute())).message == "Mute"
    assert error_of(judged(ValueError())).message == "ValueError"


def waits_after(attempt: int) -> Callable[[Job], bool]:
    return lambda job: job.state is State.scheduled and job.attempt == attempt


async def test_a_failed_attempt_is_tried_again_when_its_time_has_come() -> None:
    """Scheduled by the policy, promoted when due, and then it may succeed."""
    app = App()

    @app.task(retry=Retry(max_attempts=3, base_s=8.0))
    async def flaky(*, ctx: Context = given) -> int:
        if ctx.attempt < 3:
            raise RetryAfter(5, "not yet")
        return ctx.attempt

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("flaky")
        for attempt in (1, 2):
            waiting = await on.when(job_id, waits_after(attempt), "it waits for its next attempt")
            assert waiting.run_at_ms == on.clock.now_ms() + 5_000
            on.clock.advance(s=5)
            await on.engine.promote(10)
        job = await on.ended(job_id)
        assert (job.state, job.output, job.attempt) == (State.succeeded, "3", 3)
        reasons = [data["reason"] for data in await on.data(job_id, "job.retrying")]
        assert reasons == ["retry", "retry"]


async def test_a_retried_stream_starts_afresh() -> None:
    """The output of a job is that of its last attempt alone."""
    app = App()

    @app.task(retry=Retry(max_attempts=2, base_s=0))
    async def words(*, ctx: Context = given) -> None:
        ctx.emit(f"attempt {ctx.attempt}")
        if ctx.attempt == 1:
            raise ValueError("half way")

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("words")
        assert (await on.ended(job_id)).output == '"attempt 2"'
        assert [data["index"] for data in await on.data(job_id, "output.delta")] == [0, 0]

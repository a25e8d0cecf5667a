"""Failure: what raises is tried again by the task's policy; what cannot be helped fails at once."""

from __future__ import annotations

import pytest
from fundamentals_support import WAIT_S, running

from ropeway import App, Context, Fail, JobFailed, Retry, RetryAfter
from ropeway.runtime import given

app = App()
AT_ONCE = Retry(max_attempts=3, base_s=0)


@app.task(retry=AT_ONCE)
async def flaky(*, ctx: Context = given) -> int:
    if ctx.attempt < 3:
        raise ConnectionError("try again")
    return ctx.attempt


@app.task(retry=AT_ONCE)
async def hopeless(*, ctx: Context = given) -> None:
    raise ConnectionError(f"attempt {ctx.attempt}")


@app.task(retry=AT_ONCE)
async def pay(amount: int) -> None:
    raise Fail("the card was declined")


@app.task(retry=AT_ONCE)
async def limited(*, ctx: Context = given) -> int:
    if ctx.attempt == 1:
        raise RetryAfter(0.01, "the provider asked us to wait")
    return ctx.attempt


async def test_a_failed_attempt_is_tried_again() -> None:
    """With growing, jittered waits in between; here without."""
    async with running(app) as client:
        assert await (await client.submit(flaky)).result(timeout=WAIT_S) == 3


async def test_the_last_failure_is_the_job_s() -> None:
    """`result` raises it, with its code, type and the attempt."""
    async with running(app) as client:
        with pytest.raises(JobFailed) as caught:
            await (await client.submit(hopeless)).result(timeout=WAIT_S)
        error = caught.value.error
        assert (error.code, error.type, error.message, error.attempt) == (
            "task_error",
            "ConnectionError",
            "attempt 3",
            3,
        )


async def test_fail_is_final() -> None:
    """A task that knows better raises `Fail`: no second attempt."""
    async with running(app) as client:
        with pytest.raises(JobFailed) as caught:
            await (await client.submit(pay, 100)).result(timeout=WAIT_S)
        assert (caught.value.error.message, caught.value.error.attempt) == ("the card was declined", 1)


async def test_a_task_may_say_when_to_try_again() -> None:
    """`RetryAfter` is a floor under the policy's own wait."""
    async with running(app) as client:
        assert await (await client.submit(limited)).result(timeout=WAIT_S) == 2

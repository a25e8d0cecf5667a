"""`ctx.wait_input`: a job waits for somebody's word, and holds no place meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from runtime_support import stage

from ropeway.client import Client
from ropeway.domain.errors import JobEnded, JobNotRunning, RetryAfter
from ropeway.domain.job import DEFAULT_TENANT, Job
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.engines.inputs import Inputs
from ropeway.runtime import App, Context, given


def app_of_approval() -> App:
    """A draft that somebody approves; it tells how often it was written."""
    app = App()
    drafts: list[str] = []

    @app.task(concurrency=1)
    async def publish(topic: str, *, ctx: Context = given) -> list[Any]:
        draft = await ctx.step("draft", write, topic)
        verdict = await ctx.wait_input()
        return [draft, verdict, len(drafts)]

    @app.task
    def publish_blocking(topic: str, *, ctx: Context = given) -> list[Any]:
        draft = ctx.step_blocking("draft", write, topic)
        return [draft, ctx.wait_input_blocking(), len(drafts)]

    def write(topic: str) -> str:
        drafts.append(topic)
        return f"about {topic}"

    @app.task
    async def two_words(*, ctx: Context = given) -> list[Any]:
        return [await ctx.wait_input(), await ctx.wait_input()]

    @app.task
    async def soon(timeout_s: float, *, ctx: Context = given) -> str:
        try:
            return str(await ctx.wait_input(timeout_s))
        except TimeoutError:
            return "nobody said anything"

    return app


def waits(job: Job) -> bool:
    return job.state is State.scheduled


@pytest.mark.parametrize("task", ["publish", "publish_blocking"])
async def test_an_input_wakes_the_job_that_waits_for_it(task: str) -> None:
    """Its steps are not repeated, and it costs no attempt; whoever looks sees what it waits for."""
    async with stage(app_of_approval()) as on, Client(on.engine) as client:
        await on.work()
        job_id = await on.submit(task, topic="cranes")
        job = await on.when(job_id, waits, "it waits")
        assert msgspec.json.decode(job.progress or "") == {"message": "waits for an input"}
        await client.send(job_id, {"approved": True})
        job = await on.ended(job_id)
        assert msgspec.json.decode(job.output or "") == ["about cranes", {"approved": True}, 1]
        assert (job.attempt, job.runs) == (1, 2)


async def test_those_who_wait_hold_no_place() -> None:
    """A hundred may wait for approval where one may run."""
    async with stage(app_of_approval()) as on, Client(on.engine) as client:
        await on.work(concurrency=1)
        ids = [await on.submit("publish", topic=str(n)) for n in range(10)]
        for job_id in ids:
            await on.when(job_id, waits, "it waits")
        for job_id in reversed(ids):
            await client.send(job_id, "yes")
        for job_id in ids:
            assert (await on.ended(job_id)).state is State.succeeded


async def test_inputs_are_given_in_their_order() -> None:
    """Those of earlier waits are given again to the same waits, and each once."""
    async with stage(app_of_approval()) as on, Client(on.engine) as client:
        await on.work()
        job_id = await on.submit("two_words")
        await on.when(job_id, waits, "it waits")
        await client.send(job_id, "first", key="a")
        await client.send(job_id, "first", key="a")
        await on.when(job_id, lambda job: waits(job) and job.runs >= 2, "it waits again")
        await client.send(job_id, "second")
        assert msgspec.json.decode((await on.ended(job_id)).output or "") == ["first", "second"]


async def test_a_wait_has_an_end() -> None:
    """Counted from the first time that it was reached, however often the job was run since."""
    async with stage(app_of_approval()) as on, Client(on.engine) as client:
        await on.work(upkeep=True)
        job_id = await on.submit("soon", timeout_s=100.0)
        job = await on.when(job_id, waits, "it waits")
        until_ms = job.run_at_ms
        on.clock.advance(ms=40_000)
        await client.wake(job_id)
        job = await on.when(job_id, lambda job: waits(job) and job.runs == 2, "it waits again")
        assert job.run_at_ms == until_ms
        on.clock.advance(ms=60_000)
        await on.engine.tell("upkeep")
        assert msgspec.json.decode((await on.ended(job_id)).output or "") == "nobody said anything"


async def test_an_input_that_comes_as_the_job_goes_to_sleep_is_not_lost() -> None:
    """It came after the task looked and before its snooze was committed: the job is queued, not put to sleep."""
    app = App()
    looked = asyncio.Event()
    sent = asyncio.Event()

    @app.task
    async def sleepy(*, ctx: Context = given) -> Any:
        try:
            return await ctx.wait_input()
        finally:
            looked.set()
            await sent.wait()

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("sleepy")
        await looked.wait()
        await Inputs(on.engine).give(DEFAULT_TENANT, job_id, '"in time"')
        sent.set()
        job = await on.ended(job_id)
        assert (job.output, job.runs) == ('"in time"', 2)


async def test_inputs_are_for_jobs_that_have_begun() -> None:
    """One that waits for its first start is sent none, nor one that has ended."""
    async with stage(app_of_approval()) as on, Client(on.engine) as client:
        job_id = await on.submit("two_words")
        with pytest.raises(JobNotRunning, match="has not begun"):
            await client.send(job_id, "too early")
        await on.cancel(job_id)
        with pytest.raises(JobEnded):
            await client.send(job_id, "too late")


async def test_an_input_does_not_hasten_a_retry() -> None:
    """A job that waits after a failure waits for its time, and finds the input then."""
    app = App()

    @app.task(retry=Retry(max_attempts=2))
    async def shaky(*, ctx: Context = given) -> Any:
        if ctx.attempt == 1:
            raise RetryAfter(100.0, "not yet")
        return await ctx.input()

    async with stage(app) as on, Client(on.engine) as client:
        await on.work(upkeep=True)
        job_id = await on.submit("shaky")
        waiting = await on.when(job_id, waits, "it waits")
        await client.send(job_id, "patience")
        assert await on.job(job_id) == waiting
        on.clock.advance(ms=200_000)
        await on.engine.tell("upkeep")
        assert (await on.ended(job_id)).output == '"patience"'


async def test_a_waiting_job_can_be_cancelled() -> None:
    """It is not wanted any more, and nobody need say a word."""
    async with stage(app_of_approval()) as on:
        await on.work()
        job_id = await on.submit("publish", topic="cranes")
        await on.when(job_id, waits, "it waits")
        await on.cancel(job_id)
        assert (await on.job(job_id)).state is State.cancelled


async def test_plain_forms_are_for_blocking_code() -> None:
    """An async task that calls one is told which to await."""
    app = App()

    @app.task
    async def confused(*, ctx: Context = given) -> None:
        ctx.wait_input_blocking()

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("confused")
        job = await on.when(job_id, lambda job: job.error is not None, "it fails")
        assert "an async task awaits the plain form of it" in (job.error or "")

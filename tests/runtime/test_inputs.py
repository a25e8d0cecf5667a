"""What is sent up to a running job reaches its code: in order, once in an attempt, and again in the next."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from runtime_support import Stage, eventually, stage

from ropeway.domain.errors import (
    InvalidRequest,
    JobEnded,
    JobNotFound,
    JobNotRunning,
    PayloadTooLarge,
    RetryAfter,
    TooManyInputs,
)
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lifecycle import State
from ropeway.domain.record import Put, RecordKey
from ropeway.domain.retry import Retry
from ropeway.engines.inputs import MAX_INPUT_BYTES, Inputs
from ropeway.runtime import App, Context

QUICK = Retry(max_attempts=3, base_s=0)


async def give(s: Stage, job_id: str, data: Any, key: str | None = None) -> int:
    """Send this up, when the job runs; its number."""
    await s.when(job_id, lambda job: job.state is State.running, "the job runs")
    return await Inputs(s.engine).give(DEFAULT_TENANT, job_id, msgspec.json.encode(data).decode(), key)


async def kept(s: Stage, job_id: str) -> list[Any]:
    """What the engine keeps of a job's inputs."""
    return [given.data for given in await Inputs(s.engine).read(DEFAULT_TENANT, job_id, 0)]


async def test_an_async_task_reads_what_it_is_sent() -> None:
    """Any JSON, in the order in which it was sent, sent before the task asks or after."""
    app = App()

    @app.task
    async def talk(ctx: Context) -> list[Any]:
        heard = []
        async for turn in ctx.inputs():
            if turn == "bye":
                break
            heard.append(turn)
        return heard

    async with stage(app) as s:
        await s.work()
        job_id = await s.submit("talk")
        assert [await give(s, job_id, turn) for turn in (1, {"a": [None, "ä"]}, "x", "bye")] == [1, 2, 3, 4]
        assert msgspec.json.decode((await s.ended(job_id)).output or "") == [1, {"a": [None, "ä"]}, "x"]


@pytest.mark.parametrize("count", [1, 16, 17, 100])
async def test_more_than_a_page_is_read_in_order(count: int) -> None:
    """However much is there when the task first asks."""
    app = App()
    go = asyncio.Event()

    @app.task
    async def collect(ctx: Context) -> list[int]:
        await go.wait()
        return [await ctx.input() for _ in range(count)]

    async with stage(app) as s:
        await s.work()
        job_id = await s.submit("collect")
        for n in range(count):
            await give(s, job_id, n)
        go.set()
        assert msgspec.json.decode((await s.ended(job_id)).output or "") == list(range(count))


async def test_many_senders_are_put_in_one_order() -> None:
    """Each input has a number of its own, and none is lost."""
    app = App()

    @app.task
    async def collect(ctx: Context) -> list[int]:
        return [await ctx.input() for _ in range(40)]

    async with stage(app) as s:
        await s.work()
        job_id = await s.submit("collect")
        numbers = await asyncio.gather(*(give(s, job_id, n) for n in range(40)))
        assert sorted(numbers) == list(range(1, 41))
        heard = msgspec.json.decode((await s.ended(job_id)).output or "")
        assert [n for _, n in sorted(zip(numbers, range(40), strict=True))] == heard


async def test_a_blocking_task_reads_with_a_plain_loop() -> None:
    """Its thread waits; a generator may answer as it listens."""
    app = App()

    @app.task
    def echo(ctx: Context) -> Iterator[str]:
        for turn in ctx.inputs():
            if turn is None:
                return
            yield f"{turn}!"

    async with stage(app) as s:
        await s.work()
        job_id = await s.submit("echo")
        await give(s, job_id, "hey")
        await s.when(job_id, lambda job: job.first_output_at_ms is not None, "it answered")
        await give(s, job_id, "ho")
        await give(s, job_id, None)
        assert msgspec.json.decode((await s.ended(job_id)).output or "") == "hey!ho!"


async def test_a_wait_may_have_an_end() -> None:
    """TimeoutError when nothing comes, in async and blocking code; and the next wait is a new one."""
    app = App()
    waited = threading.Event()

    @app.task
    async def patient(ctx: Context) -> str:
        with pytest.raises(TimeoutError):
            await ctx.input(timeout_s=0.01)
        waited.set()
        answer: str = await ctx.input()
        return answer

    @app.task
    def blocked(ctx: Context) -> str:
        with pytest.raises(TimeoutError):
            ctx.input_blocking(timeout_s=0.01)
        waited.set()
        answer: str = ctx.input_blocking()
        return answer

    async with stage(app) as s:
        await s.work()
        for task in ("patient", "blocked"):
            waited.clear()
            job_id = await s.submit(task)
            await eventually(waited.is_set, "it waited in vain")
            await give(s, job_id, "there")
            assert msgspec.json.decode((await s.ended(job_id)).output or "") == "there"


async def test_each_kind_of_code_has_its_own_way_to_wait() -> None:
    """The wrong one says which is right, and does not hang."""
    app = App()

    @app.task
    async def on_loop(ctx: Context) -> None:
        ctx.input_blocking()

    @app.task
    def on_thread(ctx: Context) -> None:
        asyncio.run(_await(ctx))

    async with stage(app) as s:
        await s.work()
        assert "awaits ctx.input()" in (await s.error("on_loop")).message
        assert "ctx.input_blocking()" in (await s.error("on_thread")).message


async def _await(ctx: Context) -> None:
    await ctx.input()


async def test_the_next_attempt_is_given_all_of_it_again() -> None:
    """From the first, since it has to do what the failed one did."""
    app = App()
    heard: list[list[str]] = []

    @app.task(retry=QUICK)
    async def shaky(ctx: Context) -> int:
        heard.append([])
        async for turn in ctx.inputs():
            heard[-1].append(turn)
            if turn == "fail" and ctx.attempt < 3:
                raise RetryAfter(0, "as asked")
            if turn == "end":
                return ctx.attempt
        raise AssertionError

    async with stage(app) as s:
        await s.work(upkeep=True)
        job_id = await s.submit("shaky")
        await give(s, job_id, "a")
        await give(s, job_id, "fail")
        await s.when(job_id, lambda job: job.attempt == 3 and job.state is State.running, "the third attempt")
        await give(s, job_id, "end")
        assert msgspec.json.decode((await s.ended(job_id)).output or "") == 3
        assert heard == [["a", "fail"], ["a", "fail"], ["a", "fail", "end"]]


async def test_what_is_sent_twice_under_a_key_is_given_once() -> None:
    """A sender that lost the answer sends it again."""
    app = App()

    @app.task
    async def collect(ctx: Context) -> list[str]:
        return [await ctx.input() for _ in range(3)]

    async with stage(app) as s:
        await s.work()
        job_id = await s.submit("collect")
        for data, key in (("a", "k1"), ("a", "k1"), ("b", None), ("a", "k1"), ("c", "k2")):
            await give(s, job_id, data, key)
        assert msgspec.json.decode((await s.ended(job_id)).output or "") == ["a", "b", "c"]


async def test_only_a_running_job_of_ones_own_is_sent_anything() -> None:
    """One that waits: try again. One that has ended: never. Another's: as one that is not there."""
    app = App()

    @app.task
    async def quick() -> None: ...

    async with stage(app) as s:
        inputs = Inputs(s.engine)
        job_id = await s.submit("quick")
        with pytest.raises(JobNotRunning) as waiting:
            await inputs.give(DEFAULT_TENANT, job_id, "1")
        assert waiting.value.retryable
        for tenant, unknown in (("stranger", job_id), (DEFAULT_TENANT, "job_0")):
            with pytest.raises(JobNotFound):
                await inputs.give(tenant, unknown, "1")
        await s.work()
        await s.ended(job_id)
        with pytest.raises(JobEnded) as ended:
            await inputs.give(DEFAULT_TENANT, job_id, "1")
        assert not ended.value.retryable


async def test_an_input_has_its_limits() -> None:
    """In size, in number, and in its key; what is refused is not kept."""
    app = App()

    @app.task
    async def hangs(ctx: Context) -> None:
        await asyncio.Event().wait()

    async with stage(app) as s:
        await s.work()
        job_id = await s.submit("hangs")
        assert await give(s, job_id, "x" * (MAX_INPUT_BYTES - 2)) == 1
        with pytest.raises(PayloadTooLarge):
            await give(s, job_id, "x" * (MAX_INPUT_BYTES - 1))
        for key in ("", "k" * 256, "a\nb"):
            with pytest.raises(InvalidRequest):
                await give(s, job_id, 1, key)
        await s.engine.put([Put(RecordKey("inputs", DEFAULT_TENANT, job_id), "1000")])
        with pytest.raises(TooManyInputs):
            await give(s, job_id, 1)


async def test_they_go_with_the_jobs_end() -> None:
    """Nothing is left once the job that read them has ended; of one that read none, what it was sent expires."""
    app = App()

    @app.task
    async def reads(ctx: Context) -> list[int]:
        return [await ctx.input() for _ in range(5)]

    @app.task
    async def ignores(ctx: Context) -> None:
        await asyncio.Event().wait()

    async with stage(app) as s:
        await s.work()
        job_id = await s.submit("reads")
        for n in range(5):
            await give(s, job_id, n)
        await s.ended(job_id)
        await s.workers[0].stop()
        assert await kept(s, job_id) == []
        assert await s.engine.fetch([RecordKey("inputs", DEFAULT_TENANT, job_id)]) == [None]
        await s.work()
        job_id = await s.submit("ignores")
        await give(s, job_id, 1)
        assert await kept(s, job_id) == ["1"]
        s.clock.advance(86_400_000)
        assert await kept(s, job_id) == []


async def test_those_past_their_time_are_passed_over() -> None:
    """A job that runs longer than its inputs are kept goes on with those that are there."""
    app = App()

    @app.task
    async def late(ctx: Context) -> Any:
        ctx.log("here")
        while (turn := await ctx.input()) != "end":
            ctx.log(turn)
        return turn

    async with stage(app) as s:
        await s.work()
        job_id = await s.submit("late")
        inputs = Inputs(s.engine)
        for n in range(20):
            await give(s, job_id, str(n))
        s.clock.advance(86_400_000 - 1)
        await give(s, job_id, "end")
        s.clock.advance(1)
        assert [given.n for given in await inputs.read(DEFAULT_TENANT, job_id, 0)] == [21]
        assert (await s.ended(job_id)).state is State.succeeded


@pytest.mark.parametrize("task", ["awaits", "blocks"])
async def test_who_waits_for_more_can_be_cancelled(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, in async code and on a thread."""
    monkeypatch.setattr("ropeway.runtime.mailbox.LOOK_S", 3600)
    app = App()
    begun, stopped = threading.Event(), threading.Event()

    @app.task
    async def awaits(ctx: Context) -> AsyncIterator[str]:
        begun.set()
        async for turn in ctx.inputs():
            yield turn

    @app.task
    def blocks(ctx: Context) -> None:
        begun.set()
        try:
            ctx.input_blocking()
        finally:
            stopped.set()

    async with stage(app) as s:
        await s.work(cancel_grace_s=3600)
        job_id = await s.submit(task)
        await eventually(begun.is_set, "its code runs")
        await s.cancel(job_id)
        assert (await s.ended(job_id)).state is State.cancelled
        if task == "blocks":
            await eventually(stopped.is_set, "the thread is free")


async def test_a_lost_hint_costs_time_and_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks again by itself."""
    monkeypatch.setattr("ropeway.runtime.mailbox.LOOK_S", 0.02)
    app = App()

    @app.task
    async def reads(ctx: Context) -> Any:
        return await ctx.input()

    async with stage(app) as s:

        async def tell(*topics: str) -> None: ...

        s.engine.tell = tell  # type: ignore[method-assign]
        await s.work()
        job_id = await s.submit("reads")
        await give(s, job_id, "heard")
        assert (await s.ended(job_id)).output == '"heard"'


async def test_an_engine_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task is not failed for it."""
    monkeypatch.setattr("ropeway.runtime.mailbox.AGAIN_S", 0.02)
    app = App()

    @app.task
    async def reads(ctx: Context) -> Any:
        return await ctx.input()

    async with stage(app, lambda method, nth: "before" if method == "fetch" and nth < 3 else None) as s:
        await s.work()
        job_id = await s.submit("reads")
        await eventually(lambda: s.engine.calls["fetch"] >= 3, "it has asked in vain")  # type: ignore[attr-defined]
        await give(s, job_id, "heard")
        assert (await s.ended(job_id)).output == '"heard"'

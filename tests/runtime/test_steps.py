"""Steps: what a task has done already is not done again by its next attempt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest
from runtime_support import Stage, eventually, stage

from harnesses import HARNESSES
from ropeway.client.wire import event_body
from ropeway.domain.errors import StepInvalid
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context, given
from ropeway.runtime.steps import RESULT_LIMIT_CHARS
from ropeway.testing import ManualClock, scripted, seeded_random
from ropeway.testing.harness import Harness

ONCE = Retry(max_attempts=1)
TWICE = Retry(max_attempts=2, base_s=0)
THRICE = Retry(max_attempts=3, base_s=0)


class Page(msgspec.Struct):
    url: str
    words: tuple[int, ...]


class Calls:
    """Which functions were called, and in which thread."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.threads: set[int] = set()

    def note(self, name: str) -> None:
        self.names.append(name)
        self.threads.add(threading.get_ident())


def pipeline(calls: Calls) -> App:
    """Tasks of two steps that break after the second, at their first attempt."""
    app = App()

    async def fetch(url: str) -> Page:
        calls.note("fetch")
        return Page(url, (1, 2))

    def count(page: Page, *, more: int = 0) -> int:
        calls.note("count")
        return len(page.words) + more

    def fetch_blocking(url: str) -> Page:
        calls.note("fetch")
        return Page(url, (1, 2))

    @app.task(retry=TWICE)
    async def read(*, ctx: Context = given) -> Any:
        page = await ctx.step("fetch", fetch, "a")
        counted = await ctx.step("count", count, page, more=3)
        if ctx.attempt == 1:
            raise ConnectionError
        return [page, counted]

    @app.task(queue="blocking", retry=TWICE)
    def read_blocking(*, ctx: Context = given) -> Any:
        page = ctx.step_blocking("fetch", fetch_blocking, "a")
        counted = ctx.step_blocking("count", count, page, more=3)
        if ctx.attempt == 1:
            raise ConnectionError
        return [page, counted]

    return app


@pytest.mark.parametrize("task", ["read", "read_blocking"])
async def test_a_step_is_done_once(task: str) -> None:
    """The next attempt takes its result from the log, of the type that its function declares."""
    calls = Calls()
    async with stage(pipeline(calls)) as on:
        await on.work()
        assert await on.output(task) == [{"url": "a", "words": [1, 2]}, 5]
    assert calls.names == ["fetch", "count"]


async def test_plain_functions_run_on_threads() -> None:
    """A step that blocks does not stop the worker's other jobs; an async one runs on the loop."""
    calls = Calls()
    async with stage(pipeline(calls)) as on:
        await on.work()
        await on.output("read")
    assert len(calls.threads) == 2
    assert threading.get_ident() in calls.threads


async def test_readers_are_told_of_steps_and_not_of_their_results() -> None:
    """An event for each, with its name and how long it took; in a second attempt there are none for what is known."""
    async with stage(pipeline(Calls())) as on:
        await on.work()
        job_id = await on.submit("read")
        await on.ended(job_id)
        events = await on.events(job_id, "step.completed")
        assert [event.attempt for event in events] == [1, 1]
        shown = [msgspec.json.decode(msgspec.json.encode(event_body(event)))["data"] for event in events]
        assert [data["name"] for data in shown] == ["fetch", "count"]
        assert all(data.keys() == {"name", "seconds"} for data in shown)


async def test_a_step_that_fails_is_done_again() -> None:
    """Its exception is the attempt's, and is not kept; within an attempt, too, it may be tried again."""
    app = App()
    tries: list[int] = []

    def flaky() -> int:
        tries.append(len(tries))
        if len(tries) < 4:
            raise ConnectionError
        return len(tries)

    @app.task(retry=THRICE)
    async def work(*, ctx: Context = given) -> int:
        try:
            return await ctx.step("flaky", flaky)
        except ConnectionError:
            return await ctx.step("flaky", flaky)

    async with stage(app) as on:
        await on.work()
        assert await on.output("work") == 4


async def test_results_are_the_same_in_every_attempt() -> None:
    """What JSON does not tell apart comes back alike the first time, too: a fault shows at once, not after a crash."""
    app = App()
    seen: list[Any] = []

    @app.task(retry=TWICE)
    async def work(*, ctx: Context = given) -> None:
        seen.append(await ctx.step("pair", lambda: (1, {2: "two"})))
        if ctx.attempt == 1:
            raise ConnectionError

    async with stage(app) as on:
        await on.work()
        await on.output("work")
    assert seen == [[1, {"2": "two"}]] * 2


async def test_none_is_a_result() -> None:
    """A step that returns nothing is done all the same."""
    app = App()
    calls = []

    @app.task(retry=TWICE)
    async def work(*, ctx: Context = given) -> None:
        await ctx.step("nothing", lambda: calls.append(1))
        if ctx.attempt == 1:
            raise ConnectionError

    async with stage(app) as on:
        await on.work()
        await on.output("work")
    assert calls == [1]


async def test_steps_may_run_at_the_same_time() -> None:
    """Each under its own name; those that are done when the attempt breaks are not repeated."""
    app = App()
    calls: list[int] = []

    async def square(n: int) -> int:
        calls.append(n)
        return n * n

    @app.task(retry=TWICE)
    async def work(*, ctx: Context = given) -> list[int]:
        squares = await asyncio.gather(*(ctx.step(f"square {n}", square, n) for n in range(20)))
        if ctx.attempt == 1:
            raise ConnectionError
        return squares

    async with stage(app) as on:
        await on.work()
        assert await on.output("work") == [n * n for n in range(20)]
    assert sorted(calls) == list(range(20))


async def test_a_coroutine_of_a_lambda_is_awaited() -> None:
    """`lambda: client.get(url)` is a plain function, and what it gives is awaited."""
    app = App()

    async def later(n: int) -> int:
        return n

    @app.task
    async def work(*, ctx: Context = given) -> int:
        return await ctx.step("later", lambda: later(3))

    async with stage(app) as on:
        await on.work()
        assert await on.output("work") == 3


def no_json() -> object:
    return object()


def too_much() -> str:
    return "x" * RESULT_LIMIT_CHARS


def liar() -> int:
    return "no number"  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "fn", "said"),
    [
        ("", int, "1 to 128 printable characters"),
        ("x" * 129, int, "1 to 128 printable characters"),
        ("a\nb", int, "1 to 128 printable characters"),
        ("object", no_json, "step 'object' is no JSON value"),
        ("large", too_much, "262144 is the most: keep it as a file"),
        ("liar", liar, "is not what its function says it returns"),
    ],
)
@pytest.mark.parametrize("task", ["work", "work_blocking"])
async def test_a_step_that_cannot_be_kept_fails_the_job(
    task: str, name: str, fn: Callable[[], object], said: str
) -> None:
    """For good, with what is wrong: a repeat would come to the same."""
    app = App()

    @app.task
    async def work(*, ctx: Context = given) -> None:
        await ctx.step(name, fn)

    @app.task(queue="blocking")
    def work_blocking(*, ctx: Context = given) -> None:
        ctx.step_blocking(name, fn)

    async with stage(app) as on:
        await on.work()
        error = await on.error(task)
        assert (error.code, error.retryable, error.attempt) == ("step_invalid", False, 1)
        assert said in error.message


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_name_is_for_one_step(at_once: bool) -> None:
    """A loop must number its steps: an order that changes from attempt to attempt would mix results up."""
    app = App()

    @app.task
    async def work(*, ctx: Context = given) -> None:
        steps = [ctx.step("same", lambda: 1) for _ in range(2)]
        if at_once:
            await asyncio.gather(*steps)
        else:
            for step in steps:
                await step

    async with stage(app) as on:
        await on.work()
        error = await on.error("work")
        assert (error.code, error.retryable) == ("step_invalid", False)
        assert "f'same {n}'" in error.message


async def test_each_form_is_for_its_own_kind_of_task() -> None:
    """A blocking step would stop the worker, and a thread cannot await: both are told what to call."""
    app = App()

    async def later() -> int:
        return 1

    @app.task(retry=ONCE)
    async def work(*, ctx: Context = given) -> None:
        ctx.step_blocking("step", int)

    @app.task(queue="blocking", retry=ONCE)
    def work_blocking(*, ctx: Context = given) -> None:
        asyncio.run(ctx.step("step", int))

    @app.task(queue="blocking", retry=ONCE)
    def work_wrongly(*, ctx: Context = given) -> None:
        ctx.step_blocking("step", cast(Any, later))

    async with stage(app) as on:
        await on.work()
        assert "awaits ctx.step()" in (await on.error("work")).message
        assert "calls ctx.step_blocking()" in (await on.error("work_blocking")).message
        assert "is a plain function" in (await on.error("work_wrongly")).message


async def test_a_task_may_catch_what_is_wrong_with_a_step() -> None:
    """StepInvalid is raised where the step stands."""
    app = App()

    @app.task
    async def work(*, ctx: Context = given) -> str:
        try:
            await ctx.step("object", no_json)
        except StepInvalid as error:
            return error.detail
        return ""

    async with stage(app) as on:
        await on.work()
        assert "no JSON value" in await on.output("work")


def waits_after(runs: int) -> Callable[[Job], bool]:
    return lambda job: job.runs == runs and job.state is State.scheduled


async def test_steps_and_snoozes_make_a_long_wait() -> None:
    """Begin something once, and look for its end as often as it takes, while holding no place."""
    app = App()
    asked: list[str] = []

    def begin() -> str:
        asked.append("begin")
        return "batch_7"

    @app.task(retry=ONCE)
    async def wait_for_it(*, ctx: Context = given) -> str:
        batch = await ctx.step("begin", begin)
        asked.append(f"look for {batch}")
        if len(asked) < 4:
            ctx.snooze(60, reason=f"{batch} is not done")
        return batch

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("wait_for_it")
        for runs in (1, 2):
            await on.when(job_id, waits_after(runs), "it waits")
            on.clock.advance(s=60)
            await on.engine.promote(10)
        job = await on.ended(job_id)
        assert (job.state, job.output, job.attempt) == (State.succeeded, '"batch_7"', 1)
    assert asked == ["begin", *["look for batch_7"] * 3]


async def test_a_step_is_done_when_the_engine_has_it() -> None:
    """What comes after a step runs when its result is kept, and not before; a lost reply is asked for again."""
    app = App()
    kept: list[int] = []

    @app.task
    async def work(*, ctx: Context = given) -> None:
        ctx.emit("before")
        for n in range(3):
            await ctx.step(f"step {n}", int)
            kept.append(len(await on.events(ctx.job_id, "step.completed")))

    async with stage(app, scripted(append=["before", "after", None, "after"])) as on:
        await on.work()
        await on.run("work")
    assert kept == [1, 2, 3]


async def test_a_lost_attempt_completes_no_step() -> None:
    """One whose lease is gone is stopped in the step, and its result is nobody's: the next attempt does it."""
    app = App()
    attempts: list[int] = []
    gate = asyncio.Event()

    async def slow(attempt: int) -> int:
        attempts.append(attempt)
        if attempt == 1:
            await asyncio.shield(gate.wait())
        return attempt

    @app.task
    async def work(*, ctx: Context = given) -> int:
        return await ctx.step("slow", slow, ctx.attempt)

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("work")
        await eventually(lambda: attempts == [1], "the step is under way")
        on.clock.advance(s=86_400)
        await on.engine.rescue(10)
        gate.set()
        await on.work()
        job = await on.ended(job_id)
        assert (job.output, job.crashes) == ("2", 1)
        assert len(await on.events(job_id, "step.completed")) == 1


@asynccontextmanager
async def stage_on(harness: Harness, app: App) -> AsyncIterator[Stage]:
    clock = ManualClock()
    engine = await harness.start(clock, seeded_random("steps"))
    made = Stage(app, engine, clock)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.end_now()
        await asyncio.gather(*made.runs, return_exceptions=True)
        await harness.stop(engine)


@pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.name)
async def test_a_worker_that_dies_after_a_step_repeats_no_step(harness: Harness) -> None:
    """It had kept the step and not the job: another worker goes on after the step, and its output is whole."""
    app = App()
    calls: list[str] = []

    def answer(question: str) -> str:
        calls.append(question)
        return f"{question}: 42 — 日本"

    @app.task(resumable=True)
    async def work(*, ctx: Context = given) -> AsyncIterator[str]:
        first = await ctx.step("first", answer, "first")
        if ctx.partial is None:
            yield f"{first}; "
        if ctx.attempt == 1:
            await ctx.step("told", int)
            calls.append("halfway")
            await asyncio.Event().wait()
        yield await ctx.step("second", answer, "second")

    async with stage_on(harness, app) as on:
        await on.work(upkeep=False)
        job_id = await on.submit("work")
        await eventually(lambda: "halfway" in calls, "the worker has kept its first step")
        on.clock.advance(s=86_400)
        assert await on.engine.rescue(10) == 1
        await on.work(upkeep=False)
        job = await on.ended(job_id)
        assert (job.state, job.crashes) == (State.succeeded, 1)
        assert job.output == '"first: 42 — 日本; second: 42 — 日本"'
        assert calls == ["first", "halfway", "second"]

"""Children: jobs that a job submits, gathers without holding a place, and takes along when it is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from runtime_support import Stage, eventually, stage

from ropeway.client import Client, call
from ropeway.domain.errors import ChildFailed, Fail
from ropeway.domain.job import DEFAULT_TENANT, JobOptions, NewJob
from ropeway.domain.lease import LeaseRequest
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange
from ropeway.domain.retry import Retry
from ropeway.domain.worker import WorkerCard
from ropeway.engines.waits import Family, Waits
from ropeway.runtime import App, Context, given

ONCE = Retry(max_attempts=1)


def app_of_squares(gate: asyncio.Event | None = None) -> App:
    """A parent of many children, which wait for the gate, if any; `calls` counts how often each of their tasks ran."""
    app = App()
    calls: dict[int, int] = {}

    @app.task(retry=ONCE)
    async def square(n: int) -> int:
        calls[n] = calls.get(n, 0) + 1
        if gate is not None:
            await gate.wait()
        if n < 0:
            raise Fail("it is below zero")
        return n * n

    @app.task(concurrency=1)
    async def total(numbers: list[int], *, ctx: Context = given) -> int:
        squares = [await ctx.submit(square, n) for n in numbers]
        return sum(await ctx.gather(*squares))

    @app.task
    def total_blocking(numbers: list[int], *, ctx: Context = given) -> int:
        squares = [ctx.submit_blocking(square, n) for n in numbers]
        return sum(ctx.gather_blocking(*squares))

    @app.task
    async def each(numbers: list[int], *, ctx: Context = given) -> list[Any]:
        squares = [await ctx.submit("square", n=n) for n in numbers]
        told = await ctx.gather(*squares, return_exceptions=True)
        return [one if isinstance(one, int) else type(one).__name__ for one in told]

    @app.task
    async def counted() -> dict[int, int]:
        return calls

    return app


async def children_of(on: Stage, parent: str) -> list[str]:
    """The ids of a job's children, in the order of their submits."""
    client = Client(on.engine)
    found = [body.id async for body in client.find()]
    rows = await on.engine.get(DEFAULT_TENANT, found[::-1])
    return [job.id for job in rows if job is not None and job.options.parent == parent]


@pytest.mark.parametrize("task", ["total", "total_blocking"])
async def test_a_parent_gathers_its_children(task: str) -> None:
    """It gives its place back until they have ended; each runs once, though its parent's code began twice."""
    gate = asyncio.Event()
    async with stage(app_of_squares(gate)) as on:
        await on.work(upkeep=True)
        job_id = await on.submit(task, numbers=[1, 2, 3, 3])
        await on.when(job_id, lambda job: job.state is State.scheduled, "it waits")
        gate.set()
        parent = await on.ended(job_id)
        assert (parent.output, parent.runs, parent.attempt) == ("23", 2, 1)
        assert len(await children_of(on, parent.id)) == 4
        assert await on.output("counted") == {"1": 1, "2": 1, "3": 2}


async def test_a_waiting_parent_holds_no_place() -> None:
    """Parents that may only run one at a time wait together, and so does a worker with one place for children."""
    async with stage(app_of_squares()) as on:
        await on.work(upkeep=True, concurrency=1)
        ids = [await on.submit("total", numbers=[n, n + 1]) for n in range(5)]
        assert [(await on.ended(job_id)).output for job_id in ids] == [str(n * n + (n + 1) ** 2) for n in range(5)]


async def test_a_child_that_fails_fails_its_parent() -> None:
    """At once, and for good: another attempt would gather the same child."""
    async with stage(app_of_squares()) as on:
        await on.work(upkeep=True)
        error = await on.error("total", numbers=[1, -2])
        assert (error.code, error.retryable) == ("child_failed", False)
        assert "did not succeed: task_error: it is below zero" in error.message
        assert await on.output("each", numbers=[2, -2, 3]) == [4, "JobFailed", 9]


async def test_many_children_are_few_steps() -> None:
    """`ctx.jobs.submit_many` submits hundreds in a call, with options if wanted."""
    app = app_of_squares()

    @app.task
    async def many(count: int, *, ctx: Context = given) -> int:
        square = app.tasks["square"]
        urgent = ctx.jobs.with_options(priority="high", tags=["tile"])
        squares = [child async for child in urgent.submit_many(call(square, n) for n in range(count))]
        return sum(await ctx.gather(*squares))

    async with stage(app) as on, Client(on.engine) as client:
        await on.work(upkeep=True)
        parent = await on.run("many", count=700)
        assert parent.output == str(sum(n * n for n in range(700)))
        steps = [step["name"].split()[0] for step in await on.data(parent.id, "step.completed")]
        assert steps == ["submit", "submit", "gather"]
        children = [body async for body in client.find(tag="tile")]
        assert len(children) == 700
        assert {(body.priority, body.parent) for body in children} == {("high", parent.id)}


async def test_children_that_are_alike_are_counted() -> None:
    """Also when their calls are under way together; a refused one is submitted again as the same."""
    app = app_of_squares()

    @app.task
    async def twins(*, ctx: Context = given) -> int:
        square = app.tasks["square"]
        many = [child async for child in ctx.jobs.submit_many(call(square, 2) for _ in range(1_100))]
        more = await asyncio.gather(*(ctx.submit(square, 2) for _ in range(3)))
        assert len({child.id for child in (*many, *more)}) == 1_103
        return sum(await ctx.gather(*many, *more))

    async with stage(app) as on:
        await on.engine.set_queue([QueueChange("default", max_depth=400)])
        await on.work(upkeep=True)
        assert await on.output("twins") == 4 * 1_103
        assert await on.output("counted") == {"2": 1_103}


async def test_what_was_gathered_is_kept() -> None:
    """An attempt after the gather needs the children no more: they may be past their retention, and deleted."""
    app = app_of_squares()

    @app.task
    async def patient(*, ctx: Context = given) -> list[int]:
        square = app.tasks["square"]
        children = [await ctx.submit(square, n) for n in (2, 3)]
        once, again = await ctx.gather(*children), await ctx.gather(*children)
        assert (once, await ctx.gather()) == (again, [])
        return [*once, await ctx.wait_input()]

    async with stage(app) as on, Client(on.engine) as client:
        await on.work(upkeep=True)
        parent = await on.submit("patient")
        waits = "waits for an input"
        await on.when(parent, lambda job: job.state is State.scheduled and waits in (job.progress or ""), waits)
        for child in await children_of(on, parent):
            await client.delete(child)
        await client.send(parent, 5)
        assert (await on.ended(parent)).output == "[4,9,5]"


async def test_a_child_that_is_gone_is_lost() -> None:
    """One that ended and was deleted before it was gathered has nothing to give."""
    app = app_of_squares()

    @app.task
    async def late(*, ctx: Context = given) -> list[int]:
        child = await ctx.submit(app.tasks["square"], 2)
        await ctx.wait_input()
        return await ctx.gather(child)

    async with stage(app) as on, Client(on.engine) as client:
        await on.work(upkeep=True)
        parent = await on.submit("late")
        await on.when(parent, lambda job: job.state is State.scheduled, "it waits")
        (child,) = await children_of(on, parent)
        await on.ended(child)
        await client.delete(child)
        await client.send(parent, "go on")
        error = await on.failure(parent)
        assert (error.code, "job_gone" in error.message) == ("child_failed", True)


async def test_blocking_code_submits_many_with_options() -> None:
    """By `ctx.jobs_blocking`, whose handles block too."""
    app = app_of_squares()

    @app.task
    def many(*, ctx: Context = given) -> list[int]:
        square = app.tasks["square"]
        children = list(ctx.jobs_blocking.with_options(tags=["tile"]).submit_many(call(square, n) for n in range(5)))
        return [children[4].result(30), *ctx.gather_blocking(*children[:4])]

    async with stage(app) as on, Client(on.engine) as client:
        await on.work(upkeep=True)
        assert await on.output("many") == [16, 0, 1, 4, 9]
        assert len([body async for body in client.find(tag="tile")]) == 5


async def test_an_attempt_that_is_repeated_finds_its_children() -> None:
    """After a failure its code submits them again, in another order even, and no second ones come of it."""
    app = app_of_squares()
    tries: list[int] = []

    @app.task(retry=Retry(max_attempts=2, base_s=0.0))
    async def shaky(*, ctx: Context = given) -> list[int]:
        tries.append(ctx.attempt)
        order = [1, 2, 2, 3] if len(tries) == 1 else [3, 2, 1, 2]
        children = {await ctx.submit(app.tasks["square"], n) for n in order}
        if len(tries) == 1:
            raise RuntimeError("lost after its children were submitted")
        return sorted(await ctx.gather(*sorted(children, key=lambda child: child.id)))

    async with stage(app) as on:
        await on.work(upkeep=True)
        parent = await on.run("shaky")
        assert (parent.state, msgspec.json.decode(parent.output or "")) == (State.succeeded, [1, 4, 4, 9])
        assert len(await children_of(on, parent.id)) == 4
        assert await on.output("counted") == {"1": 1, "2": 2, "3": 1}


def app_of_a_family() -> tuple[App, asyncio.Event]:
    """Children that wait for ever, and a parent that ends as it is told; the event: they all run."""
    app = App()
    running = asyncio.Event()
    count: list[None] = []

    @app.task
    async def child() -> None:
        count.append(None)
        if len(count) == 3:
            running.set()
        await asyncio.Event().wait()

    @app.task(retry=ONCE)
    async def parent(how: str, *, ctx: Context = given) -> None:
        children = [await ctx.submit(child) for _ in range(3)]
        await running.wait()
        if how == "fails":
            raise ValueError("no more")
        if how == "gathers":
            await ctx.gather(*children)
        if how == "waits":
            await asyncio.Event().wait()

    return app, running


@pytest.mark.parametrize("how", ["waits", "gathers"])
async def test_children_are_cancelled_with_their_parent(how: str) -> None:
    """Whether it runs or waits for them: nobody pays for what nobody wants."""
    app, running = app_of_a_family()
    async with stage(app) as on:
        await on.work(upkeep=True)
        parent = await on.submit("parent", how=how)
        await eventually(running.is_set, "the children run")
        if how == "gathers":
            await on.when(parent, lambda job: job.state is State.scheduled, "it waits")
        await on.cancel(parent, "changed my mind")
        assert (await on.ended(parent)).state is State.cancelled
        for child in await children_of(on, parent):
            job = await on.ended(child)
            assert (job.state, job.cancel_reason) == (State.cancelled, f"its parent {parent} was cancelled")
        duties = on.crew.duties
        assert duties is not None
        await eventually(lambda: not duties.waking._following, "the family is done with")
        assert [kept async for kept in Waits(on.engine).since(0)] == []


async def test_children_are_cancelled_when_their_parent_fails() -> None:
    """As when one of them is lost, and the others would work for nothing."""
    app, _ = app_of_a_family()
    async with stage(app) as on:
        await on.work(upkeep=True)
        parent = await on.submit("parent", how="fails")
        assert (await on.ended(parent)).state is State.failed
        for child in await children_of(on, parent):
            job = await on.ended(child)
            assert (job.state, job.cancel_reason) == (State.cancelled, f"its parent {parent} failed")


async def test_children_outlive_a_parent_that_succeeds() -> None:
    """It did not gather them, so they are their own."""
    app, running = app_of_a_family()
    async with stage(app) as on:
        await on.work(upkeep=True)
        parent = await on.submit("parent", how="leaves")
        assert (await on.ended(parent)).state is State.succeeded
        duties = on.crew.duties
        assert duties is not None
        await eventually(lambda: not duties.waking._following, "the family is done with")
        states = [(await on.job(child)).state for child in await children_of(on, parent)]
        assert (states, running.is_set()) == ([State.running] * 3, True)


async def test_a_child_of_a_lost_parent_does_not_begin() -> None:
    """One that was submitted as its parent ended looks for itself, and is cancelled without having run."""
    app = app_of_squares()
    async with stage(app) as on:
        parent = await on.submit("total", numbers=[])
        await on.cancel(parent)
        late = NewJob("job_late", DEFAULT_TENANT, "default", "square", '{"n":7}', options=JobOptions(parent=parent))
        await on.engine.submit([late])
        await on.work()
        job = await on.ended("job_late")
        assert (job.state, job.cancel_reason) == (State.cancelled, f"its parent {parent} was cancelled")
        assert await on.output("counted") == {}


async def test_children_of_a_parent_whose_worker_dies_are_cancelled() -> None:
    """Its crashes are spent, and the engine itself fails it: whoever wakes sees that too."""
    app, running = app_of_a_family()
    async with stage(app) as on:
        await on.work(upkeep=True)
        fatal = JobOptions(max_crashes=1)
        await on.engine.submit([NewJob("job_p", DEFAULT_TENANT, "away", "parent", '{"how":"waits"}', options=fatal)])
        await on.engine.announce(WorkerCard("dead", "dead", ("away",), ttl_ms=1_000))
        assert len(await on.engine.lease(LeaseRequest("dead", "dead", ("away",), 1))) == 1
        own = JobOptions(parent="job_p")
        children = [NewJob(f"job_{n}", DEFAULT_TENANT, "default", "child", "{}", options=own) for n in range(3)]
        waits = Waits(on.engine)
        await waits.adopt(Family("job_p", DEFAULT_TENANT, tuple(job.id for job in children)), on.clock.now_ms())
        await on.engine.submit(children)
        await waits.tell()
        await eventually(running.is_set, "the children run")
        await on.engine.close("dead")
        assert (await on.ended("job_p")).state is State.failed
        assert {(await on.ended(job.id)).cancel_reason for job in children} == {"its parent job_p failed"}


async def test_a_job_has_so_many_children_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is refused, for good."""
    monkeypatch.setattr("ropeway.runtime.composing.children.CHILDREN_LIMIT", 2)
    async with stage(app_of_squares()) as on:
        await on.work(upkeep=True)
        error = await on.error("total", numbers=[1, 2, 3])
        assert (error.code, error.message) == ("step_invalid", "a job submits 2 others at the most")


async def test_gathered_errors_can_be_caught() -> None:
    """A task may do without a child."""
    app = app_of_squares()

    @app.task
    async def lenient(*, ctx: Context = given) -> str:
        bad = await ctx.submit(app.tasks["square"], -1)
        try:
            await ctx.gather(bad)
        except ChildFailed as error:
            assert error.job_id == bad.id
            assert error.error is not None
            return error.error.message
        return "it did not fail"

    async with stage(app) as on:
        await on.work(upkeep=True)
        assert await on.output("lenient") == "it is below zero"


async def test_a_child_is_awaited_where_it_is() -> None:
    """A handle's `result` keeps the attempt: for a moment's wait."""
    app = app_of_squares()

    @app.task
    async def quick(n: int, *, ctx: Context = given) -> int:
        child = await ctx.submit("square", n=n)
        return int(await child.result())

    async with stage(app) as on:
        await on.work(upkeep=True)
        parent = await on.run("quick", n=9)
        assert (parent.output, parent.runs) == ("81", 1)

"""Streaming batches: each step has the next item of every job, and each job is a stream of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from runtime_support import Stage, eventually, stage

from ropeway import DONE, NOTHING, Batch, Step
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context

ONCE = Retry(max_attempts=1)
Words = Callable[[list[int], list[Context]], Iterator[Step[str]]]


async def run_all(on: Stage, task: str, numbers: list[int]) -> list[Job]:
    job_ids = [await on.submit(task, n=n) for n in numbers]
    await on.work()
    return [await on.ended(job_id) for job_id in job_ids]


def both_forms(app: App, batch: Batch, **settings: Any) -> Callable[[Words], None]:
    """Declare a generator twice: `blocking` as it is, `async` with the same steps on the loop."""

    def declare(fn: Words) -> None:
        async def on_loop(n: list[int], ctxs: list[Context]) -> AsyncIterator[Step[str]]:
            for step in fn(n, ctxs):
                await asyncio.sleep(0)
                yield step

        def blocking(n: list[int], ctxs: list[Context]) -> Iterator[Step[str]]:
            yield from fn(n, ctxs)

        app.task(batch=batch, name="async", queue="async", **settings)(on_loop)
        app.task(batch=batch, name="blocking", queue="blocking", **settings)(blocking)

    return declare


FORMS = pytest.mark.parametrize("form", ["async", "blocking"])


@FORMS
async def test_every_job_is_a_stream_of_its_own(form: str) -> None:
    """A step gives each its next item, or nothing; the output is what it was given."""
    app = App()

    @both_forms(app, Batch(max_size=3))
    def words(n: list[int], _: list[Context]) -> Iterator[Step[str]]:
        for step in range(3):
            yield [f"{each}.{step} " if step >= each else NOTHING for each in n]

    async with stage(app) as on:
        jobs = await run_all(on, form, [0, 2, 1])
        assert [job.output for job in jobs] == ['"0.0 0.1 0.2 "', '"2.2 "', '"1.1 1.2 "']
        assert "".join(data["delta"] for data in await on.data(jobs[0].id, "output.delta")) == "0.0 0.1 0.2 "


@FORMS
async def test_a_job_that_is_done_ends_before_the_others(form: str) -> None:
    """Nobody waits for the longest answer of the batch."""
    app = App()
    release = threading.Event()

    @both_forms(app, Batch(max_size=2))
    def words(n: list[int], _: list[Context]) -> Iterator[Step[str]]:
        yield ["a" for _ in n]
        yield [DONE if each == 0 else "b" for each in n]
        while not release.is_set():
            yield [NOTHING for _ in n]
        yield ["too late" if each == 0 else "c" for each in n]

    async with stage(app) as on:
        short, long = await on.submit(form, n=0), await on.submit(form, n=1)
        await on.work()
        assert (await on.ended(short)).output == '"a"'
        assert (await on.job(long)).state is State.running
        release.set()
        assert (await on.ended(long)).output == '"abc"'


@FORMS
async def test_an_exception_in_a_step_ends_that_job_alone(form: str) -> None:
    """What it was given before stays with it."""
    app = App()

    @both_forms(app, Batch(max_size=2), retry=ONCE)
    def words(n: list[int], _: list[Context]) -> Iterator[Step[str]]:
        yield ["a" for _ in n]
        yield [ValueError("lost the thread") if each == 0 else "b" for each in n]
        yield ["c" for _ in n]

    async with stage(app) as on:
        bad, good = await run_all(on, form, [0, 1])
        assert (bad.state, bad.output, good.output) == (State.failed, '"a"', '"abc"')


@FORMS
async def test_a_cancelled_job_gets_no_further_item(form: str) -> None:
    """It ends at the next step; the others go on."""
    app = App()
    release = threading.Event()

    @both_forms(app, Batch(max_size=2))
    def words(n: list[int], _: list[Context]) -> Iterator[Step[str]]:
        yield ["a" for _ in n]
        while not release.is_set():
            yield [NOTHING for _ in n]
        yield ["b" for _ in n]

    async with stage(app) as on:
        first, second = await on.submit(form, n=0), await on.submit(form, n=1)
        await on.work()
        await on.when(first, lambda job: job.first_output_at_ms is not None, "it streams")
        await on.cancel(first)
        cancelled = await on.ended(first)
        assert (cancelled.state, cancelled.output) == (State.cancelled, '"a"')
        release.set()
        assert (await on.ended(second)).output == '"ab"'


@FORMS
async def test_when_nobody_wants_a_stream_any_more_it_is_closed(form: str) -> None:
    """All cancelled: the generator ends where it is."""
    app = App()
    closed: list[int] = []

    @both_forms(app, Batch(max_size=2))
    def words(n: list[int], _: list[Context]) -> Iterator[Step[str]]:
        try:
            yield ["a" for _ in n]
            while True:
                yield [NOTHING for _ in n]
        finally:
            closed.append(len(n))

    async with stage(app) as on:
        job_ids = [await on.submit(form, n=n) for n in range(2)]
        await on.work()
        for job_id in job_ids:
            await on.when(job_id, lambda job: job.first_output_at_ms is not None, "it streams")
            await on.cancel(job_id)
        assert [(await on.ended(job_id)).output for job_id in job_ids] == ['"a"', '"a"']
        await eventually(lambda: closed == [2], "the generator is closed")
        await eventually(lambda: on.workers[0].snapshot().batches[form].running == 0, "the call is free")


@FORMS
async def test_a_stream_that_breaks_before_any_output_is_halved(form: str) -> None:
    """As a call that returns: nobody has read anything yet."""
    app = App()
    calls: list[list[int]] = []

    @both_forms(app, Batch(max_size=2), retry=ONCE)
    def words(n: list[int], _: list[Context]) -> Iterator[Step[str]]:
        calls.append(n)
        if 0 in n:
            raise ValueError("no")
        yield ["a" for _ in n]

    async with stage(app) as on:
        bad, good = await run_all(on, form, [0, 1])
        assert (bad.state, good.output, calls) == (State.failed, '"a"', [[0, 1], [0], [1]])


@FORMS
async def test_a_stream_that_breaks_half_way_is_not_repeated_for_its_readers(form: str) -> None:
    """Who has output fails and keeps it; who has none yet is called again."""
    app = App()
    calls: list[list[int]] = []

    @both_forms(app, Batch(max_size=3), retry=ONCE)
    def words(n: list[int], _: list[Context]) -> Iterator[Step[str]]:
        calls.append(n)
        yield [NOTHING if each == 2 else "a" for each in n]
        if len(n) > 1:
            raise ValueError("broke off")
        yield ["b" for _ in n]

    async with stage(app) as on:
        jobs = await run_all(on, form, [0, 1, 2])
        assert [job.output for job in jobs] == ['"a"', '"a"', '"b"']
        assert [job.state for job in jobs] == [State.failed, State.failed, State.succeeded]
        assert calls == [[0, 1, 2], [2]]


@FORMS
@pytest.mark.parametrize("step", [["a"], "ab", None])
async def test_a_step_that_is_not_one_for_each_fails_all(form: str, step: Any) -> None:
    """Nobody can tell whose the items are."""
    app = App()

    @both_forms(app, Batch(max_size=2))
    def words(n: list[int], _: list[Context]) -> Iterator[Step[str]]:
        yield step

    async with stage(app) as on:
        jobs = await run_all(on, form, [0, 1])
        assert {(await on.failure(job.id)).code for job in jobs} == {"output_invalid"}


@FORMS
async def test_a_stream_with_no_items_is_empty(form: str) -> None:
    """Whether it was said that it is done, or not."""
    app = App()

    @both_forms(app, Batch(max_size=2))
    def nothing(n: list[int], _: list[Context]) -> Iterator[Step[str]]:
        yield [DONE if each == 0 else NOTHING for each in n]

    async with stage(app) as on:
        assert [job.output for job in await run_all(on, form, [0, 1])] == ['""', '""']


async def test_none_is_an_item_like_any_other() -> None:
    """That is why there is a sign of its own for nothing."""
    app = App()

    @app.task(batch=Batch(max_size=2))
    def nulls(n: list[int]) -> Iterator[Step[int | None]]:
        yield [None for _ in n]
        yield [each if each else NOTHING for each in n]

    async with stage(app) as on:
        assert [job.output for job in await run_all(on, "nulls", [0, 1])] == ["[null]", "[null,1]"]


@FORMS
async def test_a_resumable_stream_goes_on_where_each_job_was(form: str) -> None:
    """What an earlier attempt put out is no output of this one: a call that breaks before any is halved as ever."""
    app = App()
    calls: list[list[tuple[int, str | None]]] = []

    @both_forms(app, Batch(max_size=2), resumable=True, retry=Retry(max_attempts=2, base_s=0))
    def words(n: list[int], ctxs: list[Context]) -> Iterator[Step[str]]:
        calls.append([(each, ctx.partial) for each, ctx in zip(n, ctxs, strict=True)])
        if len(calls) == 1:
            yield ["a" for _ in n]
            raise ConnectionError
        if len(n) > 1:
            raise ValueError("together they do not fit")
        yield ["b" for _ in n]

    async with stage(app) as on:
        assert [job.output for job in await run_all(on, form, [0, 1])] == ['"ab"', '"ab"']
        assert calls[0] == [(0, None), (1, None)]
        assert all(partial == "a" for call in calls[1:] for _, partial in call)

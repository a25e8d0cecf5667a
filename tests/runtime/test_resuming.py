"""What an attempt made is kept, however it ended; and the next one of a resumable task goes on from there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from typing import Any

import pytest
from runtime_support import Stage, eventually, stage

from ropeway.domain.errors import EngineUnavailable, Fail
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context, given
from ropeway.runtime.feed import BOUND_ITEMS
from ropeway.testing import scripted

TWICE = Retry(max_attempts=2, base_s=0)
ONCE = Retry(max_attempts=1)


def has_output(job: Job) -> bool:
    return job.first_output_at_ms is not None


class Halfway:
    """An application with a task that emits half of its output, and waits for its end."""

    def __init__(self) -> None:
        self.app = App()
        self.go = asyncio.Event()

        @self.app.task(retry=ONCE, timeout=600, max_crashes=1)
        async def half(*, ctx: Context = given) -> AsyncIterator[str]:
            yield "half "
            yield "of it"
            await self.go.wait()
            raise Fail("broken")


async def expire(on: Stage) -> None:
    """Kill every worker, as far as the engine can see: its sessions fall silent and are rescued."""
    on.clock.advance(s=86_400)
    await on.engine.rescue(100)


@pytest.mark.parametrize("end", ["fail", "cancel", "timeout", "crash", "cancel and crash", "drain and cancel"])
async def test_however_an_attempt_ends_its_output_is_kept(end: str) -> None:
    """The row of the ended job offers what had been put out, as far as the engine had it."""
    made = Halfway()
    async with stage(made.app) as on:
        worker = await on.work(grace_s=0)
        job_id = await on.submit("half")
        await on.when(job_id, has_output, "it is halfway")
        await eventually(lambda: len(on.crew.executor.running) == 1, "it runs")
        if end == "fail":
            made.go.set()
        elif end == "cancel":
            await on.cancel(job_id)
        elif end == "timeout":
            (run,) = on.crew.executor.running
            assert run.timer is not None
            asyncio.get_running_loop().call_soon(run.timer._run)  # its time is over
        elif end == "drain and cancel":
            on.engine.listen = None  # type: ignore[method-assign, assignment]  # the worker does not hear of it
            await on.cancel(job_id)
            await worker.stop()
        else:
            if end == "cancel and crash":
                await on.engine.cancel("default", [job_id], None)
            await expire(on)
        job = (await on.engine.get("default", [job_id]))[0]
        while job is not None and not job.state.terminal:
            await asyncio.sleep(0)
            job = (await on.engine.get("default", [job_id]))[0]
        assert job is not None
        assert job.state is (State.cancelled if "cancel" in end else State.failed)
        assert job.output == '"half of it"'


PATIENT = Retry(max_attempts=4, base_s=0)


class Teller:
    """Tells one item of a story in each attempt, and keeps what each was given."""

    def __init__(self, *items: Any) -> None:
        self.partials: list[Any] = []
        self._items = items

    def next(self, ctx: Context) -> Any:
        self.partials.append(ctx.partial)
        return self._items[len(self.partials) - 1]

    def check(self) -> None:
        """Break, unless all is told."""
        if len(self.partials) < len(self._items):
            raise ConnectionError


def text(app: App, story: Teller) -> None:
    @app.task(resumable=True, retry=PATIENT)
    async def tell(*, ctx: Context = given) -> AsyncIterator[str]:
        yield story.next(ctx)
        story.check()


def emitted(app: App, story: Teller) -> None:
    @app.task(resumable=True, retry=PATIENT)
    async def tell(*, ctx: Context = given) -> None:
        ctx.emit(story.next(ctx))
        story.check()


def blocking(app: App, story: Teller) -> None:
    @app.task(queue="blocking", resumable=True, retry=PATIENT)
    def tell(*, ctx: Context = given) -> Iterator[Any]:
        yield story.next(ctx)
        story.check()


@pytest.mark.parametrize(
    ("declare", "items", "partials", "output"),
    [
        (text, ["one ", "two ", "three"], [None, "one ", "one two "], '"one two three"'),
        (emitted, ["one ", "two ", "three"], [None, "one ", "one two "], '"one two three"'),
        (blocking, [1, {"n": 1}, "b", None], [None, [1], [1, {"n": 1}], [1, {"n": 1}, "b"]], '[1,{"n":1},"b",null]'),
    ],
)
async def test_a_resumable_task_goes_on(
    declare: Callable[[App, Teller], None], items: list[Any], partials: list[Any], output: str
) -> None:
    """Each attempt is given what those before it made; readers see one stream; the output is the whole."""
    app, story = App(), Teller(*items)
    declare(app, story)
    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("tell")
        job = await on.ended(job_id)
        assert (job.state, job.output, job.attempt) == (State.succeeded, output, len(items))
        assert story.partials == partials
        types = {event.type for event in await on.events(job_id)}
        assert "output.reset" not in types
        assert len(await on.events(job_id, "output.resumed")) == len(items) - 1
        deltas = await on.data(job_id, "output.delta")
        assert [(delta["index"], delta["delta"]) for delta in deltas] == list(enumerate(items))


async def test_without_it_an_attempt_is_given_nothing() -> None:
    """`partial` is for tasks that say that they are resumable: others would put their output out twice."""
    app = App()
    partials = []

    @app.task(retry=TWICE)
    async def words(*, ctx: Context = given) -> AsyncIterator[str]:
        partials.append(ctx.partial)
        yield "word"
        if ctx.attempt == 1:
            raise ConnectionError

    async with stage(app) as on:
        await on.work()
        assert await on.output("words") == "word"
    assert partials == [None, None]


async def test_a_snooze_goes_on_too() -> None:
    """What was put out before a snooze is not put out again, though the attempt has the same number."""
    app = App()

    @app.task(resumable=True)
    async def words(*, ctx: Context = given) -> AsyncIterator[str]:
        if ctx.partial is None:
            yield "before "
            ctx.snooze(0)
        yield "after"

    async with stage(app) as on:
        await on.work()
        assert await on.output("words") == "before after"


async def test_a_resumed_attempt_that_adds_nothing_has_the_whole_output() -> None:
    """It had all been put out when the worker died."""
    app = App()

    @app.task(resumable=True, retry=TWICE)
    async def words(*, ctx: Context = given) -> AsyncIterator[str]:
        if ctx.partial is None:
            yield "all"
            raise ConnectionError

    async with stage(app) as on:
        await on.work()
        assert await on.output("words") == "all"


@pytest.mark.parametrize(
    ("items", "partial"),
    [
        (["a", "b", 1, "c", "d"], ["ab", 1, "cd"]),
        ([date(2026, 1, 2), date(2026, 1, 3)], ["2026-01-02", "2026-01-03"]),
        (["a", date(2026, 1, 2), "b"], ["a", "2026-01-02", "b"]),
    ],
)
async def test_what_is_read_back_is_what_would_have_been_committed(items: list[Any], partial: list[Any]) -> None:
    """Strings that follow each other are one; what only looks like text in JSON is an item."""
    app = App()
    partials = []

    @app.task(resumable=True, retry=TWICE)
    async def put_out(*, ctx: Context = given) -> AsyncIterator[Any]:
        partials.append(ctx.partial)
        if ctx.partial is None:
            for item in items:
                yield item
            raise ConnectionError

    async with stage(app) as on:
        await on.work()
        assert await on.output("put_out") == partial
    assert partials == [None, partial]


async def test_much_output_is_read_back_and_added_to() -> None:
    """More than a page of events, and more than may be unsaved: neither stands in the way of going on."""
    app = App()
    many = 5 * BOUND_ITEMS

    @app.task(queue="blocking", resumable=True, retry=TWICE)
    def count(*, ctx: Context = given) -> Iterator[int]:
        start = len(ctx.partial or ())
        yield from range(start, start + many)
        if not start:
            raise ConnectionError

    async with stage(app) as on:
        await on.work()
        assert await on.output("count") == list(range(2 * many))


async def test_an_engine_that_is_away_is_waited_for() -> None:
    """An attempt that is to go on begins when its past is known, not without it."""
    app = App()

    @app.task(resumable=True, retry=TWICE)
    async def words(*, ctx: Context = given) -> AsyncIterator[str]:
        yield "on" if ctx.partial else "go "
        if not ctx.partial:
            raise ConnectionError

    async with stage(app, scripted(read=["before", "before"])) as on:
        await on.work()
        assert await on.output("words") == "go on"


async def test_an_attempt_that_cannot_read_its_past_can_be_stopped() -> None:
    """A cancel does not wait for the engine to answer."""
    app = App()

    @app.task(resumable=True, retry=TWICE)
    async def words(*, ctx: Context = given) -> AsyncIterator[str]:
        yield "go "
        raise ConnectionError

    async with stage(app) as on:
        await on.work()
        asked = asyncio.Event()

        async def read(*_: Any) -> Any:
            asked.set()
            await asyncio.sleep(0)
            raise EngineUnavailable

        reading, on.engine.read = on.engine.read, read  # type: ignore[method-assign, assignment]
        job_id = await on.submit("words")
        await eventually(asked.is_set, "the second attempt reads its past")
        await on.cancel(job_id)
        job = await on.ended(job_id)
        on.engine.read = reading  # type: ignore[method-assign]
        assert job.state is State.cancelled

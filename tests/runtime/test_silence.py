"""Times that AI needs: to the first output, and between two of them; each with a code of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import msgspec
import pytest
from runtime_support import stage

from ropeway.domain.job import JobOptions
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context, given
from ropeway.runtime.attempt import Reason
from ropeway.runtime.feed import Feed
from ropeway.runtime.silence import Silence

ONCE = Retry(max_attempts=1)
SOON_S = 0.02
NEVER_S = 600.0

app = App()
gates: dict[str, threading.Event] = {}


@app.task(first_output_timeout=SOON_S, retry=ONCE)
async def mute() -> AsyncIterator[str]:
    await asyncio.Event().wait()
    yield "never"


@app.task(output_timeout=SOON_S, retry=ONCE)
async def falls_silent() -> AsyncIterator[str]:
    yield "some "
    await asyncio.Event().wait()


@app.task(output_timeout=SOON_S, retry=ONCE)
async def busy_but_silent(*, ctx: Context = given) -> None:
    ctx.emit("one")
    while True:
        ctx.progress(0.5)
        await asyncio.sleep(SOON_S / 10)


@app.task(first_output_timeout=SOON_S, retry=ONCE)
async def no_stream() -> str:
    await asyncio.Event().wait()
    return "never"


@app.task(queue="blocking", first_output_timeout=SOON_S, retry=ONCE)
def mute_on_a_thread(*, ctx: Context = given) -> None:
    while not ctx.cancelled:
        pass


@app.task(queue="blocking", output_timeout=SOON_S, retry=ONCE)
def falls_silent_on_a_thread(*, ctx: Context = given) -> Iterator[int]:
    yield 1
    while not ctx.cancelled:
        pass


@app.task(first_output_timeout=NEVER_S, output_timeout=NEVER_S)
async def words() -> AsyncIterator[str]:
    yield "a"
    yield "b"


@pytest.mark.parametrize(
    ("task", "code", "output"),
    [
        ("mute", "first_output_timeout", None),
        ("no_stream", "first_output_timeout", None),
        ("mute_on_a_thread", "first_output_timeout", None),
        ("falls_silent", "output_timeout", '"some "'),
        ("busy_but_silent", "output_timeout", '"one"'),
        ("falls_silent_on_a_thread", "output_timeout", "[1]"),
    ],
)
async def test_each_silence_has_its_code(task: str, code: str, output: str | None) -> None:
    """A repeat may do better, so it is retryable; what was put out is kept. Progress is no output."""
    async with stage(app) as on:
        await on.work()
        job_id = await on.submit(task)
        error = await on.failure(job_id)
        assert (error.code, error.retryable) == (code, True)
        assert f"for {SOON_S:g} s" in error.message or f"within {SOON_S:g} s" in error.message
        assert (await on.job(job_id)).output == output


async def test_a_task_that_speaks_in_time_is_left_alone() -> None:
    """It ends as any other, and no timer is left."""
    async with stage(app) as on:
        await on.work()
        assert await on.output("words") == "ab"


async def test_the_reason_is_told_to_the_code() -> None:
    """`ctx.stop_reason` names the time that is over."""
    app = App()
    reasons: list[str | None] = []

    @app.task(first_output_timeout=SOON_S, retry=ONCE)
    async def mute(*, ctx: Context = given) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            reasons.append(ctx.stop_reason)

    async with stage(app) as on:
        await on.work()
        await on.error("mute")
    assert reasons == ["first_output_timeout"]


async def test_a_silent_attempt_is_tried_again() -> None:
    """By the job's policy; each attempt has all its time."""
    app = App()

    @app.task(output_timeout=SOON_S, retry=Retry(max_attempts=2, base_s=0))
    async def flaky(*, ctx: Context = given) -> AsyncIterator[int]:
        yield ctx.attempt
        if ctx.attempt == 1:
            await asyncio.Event().wait()

    async with stage(app) as on:
        await on.work()
        job = await on.run("flaky")
        assert (job.state, job.output, job.attempt) == (State.succeeded, "[2]", 2)


class Loop:
    """A loop's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, at_s: float, call: Callable[..., None], *args: Any) -> Timer:
        entry = (at_s, call, args)
        self.timers.append(entry)
        return Timer(self, entry)

    def move(self, seconds: float, *, standing: float = 0.0) -> None:
        """Let time pass, and at its end stand still for some more; then call what is due."""
        self.now_s += seconds
        due = sorted((entry for entry in self.timers if entry[0] <= self.now_s), key=lambda entry: entry[0])
        self.now_s += standing
        for entry in due:
            self.timers.remove(entry)
            entry[1](*entry[2])


class Timer:
    def __init__(self, loop: Loop, entry: Any) -> None:
        self._loop = loop
        self._entry = entry

    def cancel(self) -> None:
        if self._entry in self._loop.timers:
            self._loop.timers.remove(self._entry)


class Fullness:
    full = False


def listening(first_s: float | None, between_s: float | None) -> tuple[Silence, Loop, Fullness, list[Reason]]:
    options = msgspec.structs.replace(JobOptions(), first_output_timeout_s=first_s, output_timeout_s=between_s)
    loop, feed, reasons = Loop(), Fullness(), list[Reason]()
    silence = Silence(options, cast(asyncio.AbstractEventLoop, loop), cast(Feed, feed), reasons.append)
    silence.begin()
    return silence, loop, feed, reasons


def test_the_time_between_is_counted_from_the_last_output() -> None:
    """And there is one timer, however many outputs come."""
    silence, loop, _, reasons = listening(None, 10.0)
    assert loop.timers == []
    for _ in range(5):
        silence.heard()
        loop.move(9.0)
        assert len(loop.timers) == 1
    assert reasons == []
    loop.move(1.0)
    assert reasons == [Reason.output_timeout]
    assert loop.timers == []


def test_the_first_output_ends_the_first_wait() -> None:
    """Without a limit on the time between, nothing is counted any more."""
    silence, loop, _, reasons = listening(10.0, None)
    loop.move(9.0)
    silence.heard()
    loop.move(1000.0)
    assert (reasons, loop.timers) == ([], [])


def test_waiting_for_the_engine_is_no_silence() -> None:
    """While as much is unsaved as may be, the code waits, and is not to blame."""
    silence, loop, feed, reasons = listening(None, 10.0)
    silence.heard()
    feed.full = True
    for _ in range(5):
        loop.move(10.0)
    assert reasons == []
    feed.full = False
    loop.move(10.0)
    assert reasons == [Reason.output_timeout]


def test_a_loop_that_stood_still_heard_nothing() -> None:
    """Code that blocks the event loop makes every stream in it silent: what waits to be heard gets its turn first."""
    silence, loop, _, reasons = listening(10.0, 10.0)
    loop.move(10.0, standing=30.0)
    assert reasons == []
    silence.heard()
    loop.move(9.0)
    assert reasons == []


def test_a_silent_attempt_in_a_loop_that_stood_still_is_ended_all_the_same() -> None:
    """The grace is given once."""
    _, loop, _, reasons = listening(10.0, None)
    loop.move(10.0, standing=30.0)
    loop.move(1.0, standing=30.0)
    assert reasons == [Reason.first_output_timeout]

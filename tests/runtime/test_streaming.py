"""Streaming: what is told of a running attempt, in order, merged when the engine is slow, never written twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from runtime_support import PATIENCE_S, Stage, eventually, stage

from ropeway.domain.errors import LeaseLost
from ropeway.domain.lease import Append, Appended
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context, given
from ropeway.runtime.feed import APPEND_CHARS, BOUND_ITEMS, MERGE_ITEMS
from ropeway.testing import scripted

ONCE = Retry(max_attempts=1)


class SlowAppends:
    """Holds the engine's `append` back until the test lets it through, and keeps what was appended."""

    def __init__(self, on: Stage) -> None:
        self.batches: list[Sequence[Append]] = []
        self.open = asyncio.Event()
        self._append = on.engine.append
        on.engine.append = self.append  # type: ignore[method-assign]

    async def append(self, batch: Sequence[Append]) -> list[Appended | LeaseLost]:
        self.batches.append(batch)
        await self.open.wait()
        return await self._append(batch)


async def test_deltas_carry_the_position_of_their_first_item() -> None:
    """`index` counts the items of the output; strings that were merged count each."""
    app = App()

    @app.task
    async def words() -> AsyncIterator[Any]:
        yield "a"
        yield "b"
        yield {"n": 1}
        yield "c"

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("words")
        assert (await on.ended(job_id)).output == '["ab",{"n":1},"c"]'
        deltas = await on.data(job_id, "output.delta")
        assert deltas == [{"index": 0, "delta": "ab"}, {"index": 2, "delta": {"n": 1}}, {"index": 3, "delta": "c"}]


async def test_what_waits_is_appended_in_bounded_parts() -> None:
    """Large items go out a few at a time, and one above the bound alone: what is read back is read whole."""
    app = App()
    sizes = [APPEND_CHARS // 4] * 10 + [APPEND_CHARS * 2] + [10] * 3

    @app.task
    async def heavy() -> AsyncIterator[Any]:
        for n, size in enumerate(sizes):
            yield {"n": n, "text": "x" * size}

    async with stage(app) as on:
        slow = SlowAppends(on)
        await on.work()
        job_id = await on.submit("heavy")
        await eventually(lambda: bool(slow.batches), "the first item is under way")
        slow.open.set()
        assert (await on.ended(job_id)).state is State.succeeded
        deltas = await on.data(job_id, "output.delta")
        assert [delta["delta"]["n"] for delta in deltas] == list(range(len(sizes)))
        assert [delta["index"] for delta in deltas] == list(range(len(sizes)))
        appends = [append.drafts for batch in slow.batches for append in batch]
        assert all(len(drafts) == 1 or sum(len(data) for _, data in drafts) <= APPEND_CHARS for drafts in appends)
        assert max(map(len, appends)) > 1, "they still go together"


async def test_the_first_delta_goes_at_once_and_the_rest_together() -> None:
    """While an append is in flight, what comes is merged, at most 32 strings an event, and goes with the next."""
    app = App()
    ticks = asyncio.Queue[str]()

    @app.task
    async def words() -> AsyncIterator[str]:
        while (word := await ticks.get()) != "end":
            yield word

    async with stage(app) as on:
        slow = SlowAppends(on)
        await on.work()
        job_id = await on.submit("words")
        ticks.put_nowait("first ")
        await eventually(lambda: len(slow.batches) == 1, "the first delta is under way")
        for n in range(MERGE_ITEMS + 8):
            ticks.put_nowait(f"{n} ")
        ticks.put_nowait("end")
        await eventually(ticks.empty, "the task has made its words")
        slow.open.set()
        job = await on.ended(job_id)
        sent = [[len(append.drafts) for append in batch] for batch in slow.batches]
        assert sent == [[1], [2]]
        indexes = [data["index"] for data in await on.data(job_id, "output.delta")]
        assert indexes == [0, 1, 1 + MERGE_ITEMS]
        expected = "first " + "".join(f"{n} " for n in range(MERGE_ITEMS + 8))
        assert msgspec.json.decode(job.output or "") == expected


async def test_the_appends_of_all_jobs_go_in_one_call() -> None:
    """A hundred streams cost one call to the engine, not a hundred."""
    app = App()
    go = asyncio.Event()

    @app.task
    async def word(n: int) -> AsyncIterator[str]:
        await go.wait()
        yield f"{n}"

    async with stage(app) as on:
        slow = SlowAppends(on)
        slow.open.set()
        worker = await on.work()
        jobs = [await on.submit("word", n=n) for n in range(100)]
        await eventually(lambda: worker.snapshot().running == 100, "all run")
        go.set()
        for job_id in jobs:
            await on.ended(job_id)
        assert [len(batch) for batch in slow.batches] == [100]


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "blocking"])
async def test_a_generator_that_outruns_the_engine_waits(blocking: bool) -> None:
    """No more than so many items are ever unsaved; it goes on when the engine has them."""
    app = App()
    made = [0]
    total = 5 * BOUND_ITEMS

    @app.task
    async def fast() -> AsyncIterator[str]:
        for _ in range(total):
            made[0] += 1
            yield "x"

    @app.task
    def fast_in_thread() -> Iterator[str]:
        for _ in range(total):
            made[0] += 1
            yield "x"

    async with stage(app) as on:
        slow = SlowAppends(on)
        await on.work()
        job_id = await on.submit("fast_in_thread" if blocking else "fast")
        await eventually(lambda: len(slow.batches) == 1 and made[0] >= BOUND_ITEMS, "it has filled its bound")
        for _ in range(20):
            await asyncio.sleep(0)
        assert made[0] <= 2 * BOUND_ITEMS + 1
        slow.open.set()
        assert (await on.ended(job_id)).output == '"' + "x" * total + '"'


async def test_what_is_emitted_comes_before_the_end() -> None:
    """The outcome is committed after the last event, however slow the engine is."""
    app = App()

    @app.task
    async def talk(*, ctx: Context = given) -> None:
        ctx.emit("a")
        ctx.log("halfway", "warning")
        ctx.progress(0.5, step="half", message="of it")
        ctx.emit("b")

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("talk")
        assert (await on.ended(job_id)).output == '"ab"'
        told = [(event.type, msgspec.json.decode(event.data)) for event in (await on.events(job_id))[2:-1]]
        assert told == [
            ("output.delta", {"index": 0, "delta": "a"}),
            ("log", {"level": "warning", "message": "halfway"}),
            ("progress", {"fraction": 0.5, "step": "half", "message": "of it"}),
            ("output.delta", {"index": 1, "delta": "b"}),
        ]
        assert (await on.events(job_id))[-1].type == "job.succeeded"


async def test_what_a_task_returns_is_its_output_also_when_it_emitted() -> None:
    """Emitted items are the stream; the return value, when there is one, is the result."""
    app = App()

    @app.task
    def talk(*, ctx: Context = given) -> dict[str, int]:
        ctx.emit("thinking")
        return {"answer": 42}

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("talk")
        assert (await on.ended(job_id)).output == '{"answer":42}'
        assert await on.data(job_id, "output.delta") == [{"index": 0, "delta": "thinking"}]


async def test_progress_is_thinned_and_the_last_is_kept() -> None:
    """Ten a second at most: with time standing still, the first and the last of a thousand."""
    app = App()

    @app.task
    async def work(*, ctx: Context = given) -> None:
        for n in range(1_000):
            ctx.progress(n / 999)

    @app.task
    def work_in_thread(*, ctx: Context = given) -> None:
        for n in range(1_000):
            ctx.progress(n / 999)

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("work")
        assert (await on.ended(job_id)).progress == '{"fraction":1.0}'
        assert [data["fraction"] for data in await on.data(job_id, "progress")] == [0.0, 1.0]
        job_id = await on.submit("work_in_thread")
        assert (await on.ended(job_id)).progress == '{"fraction":1.0}'
        assert len(await on.data(job_id, "progress")) <= 2


async def test_progress_goes_on_as_time_passes() -> None:
    """A report after the gap goes at once."""
    app = App()
    step, stepped = asyncio.Event(), asyncio.Event()

    @app.task
    async def work(*, ctx: Context = given) -> None:
        ctx.progress(-1)
        stepped.set()
        await step.wait()
        ctx.progress(2)
        ctx.progress(None, step="end")

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("work")
        await stepped.wait()
        on.clock.advance(ms=100)
        step.set()
        await on.ended(job_id)
        assert await on.data(job_id, "progress") == [{"fraction": 0.0}, {"fraction": 1.0}, {"step": "end"}]


async def test_usage_adds_up() -> None:
    """Numbers add, words replace; the job shows the sum, and so does each event."""
    app = App()

    @app.task
    def work(*, ctx: Context = given) -> None:
        ctx.usage(input_tokens=10, model="a")
        ctx.usage(input_tokens=5, output_tokens=2.5, model="b")

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("work")
        job = await on.ended(job_id)
        assert msgspec.json.decode(job.usage or "") == {"input_tokens": 15, "model": "b", "output_tokens": 2.5}


async def test_many_threads_may_tell_of_one_attempt() -> None:
    """Emitted side by side, nothing is lost and every position is used once."""
    app = App()

    @app.task
    async def fan(*, ctx: Context = given) -> None:
        def part(name: str) -> None:
            for _ in range(200):
                ctx.emit({"from": name})

        await asyncio.gather(*(ctx.to_thread(part, name) for name in "abcd"))

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("fan")
        items = msgspec.json.decode((await on.ended(job_id)).output or "")
        assert sorted(item["from"] for item in items) == sorted("abcd" * 200)
        assert [data["index"] for data in await on.data(job_id, "output.delta")] == list(range(800))


async def test_a_repeated_append_writes_nothing_twice() -> None:
    """An append whose reply was lost is sent again with the same expected n, and so is one that never arrived."""
    app = App()

    @app.task
    async def words() -> AsyncIterator[str]:
        for word in ("a", "b", "c"):
            yield word
            for _ in range(5):
                await asyncio.sleep(0)

    async with stage(app, scripted(append=["after", "before", "after", None, "before"])) as on:
        await on.work()
        job_id = await on.submit("words")
        assert (await on.ended(job_id)).output == '"abc"'
        assert "".join(data["delta"] for data in await on.data(job_id, "output.delta")) == "abc"
        seqs = [event.seq for event in await on.events(job_id)]
        assert seqs == [1, *range(len(seqs) - 1)]


async def test_a_stream_that_lost_its_lease_ends_silently() -> None:
    """The zombie's code is stopped, its events and its outcome go nowhere; the successor's stand alone."""
    app = App()
    began = threading.Event()
    told: list[str | None] = []

    @app.task
    async def words(*, ctx: Context = given) -> AsyncIterator[str]:
        yield f"{ctx.attempt}"
        if ctx.attempt == 2:
            return
        began.set()
        try:
            while True:
                await asyncio.sleep(0)
                yield "zombie"
        finally:
            told.append(ctx.stop_reason)

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("words")
        await eventually(began.is_set, "it streams")
        session = on.crew.sessions.current
        assert session is not None
        await on.engine.close(session.id)  # as a supervisor does that takes the worker for dead
        on.crew.keeper.beat()
        job = await on.ended(job_id)
        assert (job.state, job.output, job.attempt, job.crashes) == (State.succeeded, '"2"', 2, 1)
        await eventually(lambda: told == ["lost"], "the zombie was stopped")
        epochs = [event.cursor.epoch for event in await on.events(job_id, "output.delta")]
        assert epochs == sorted(epochs)


async def test_one_lost_lease_stops_its_own_attempt_alone() -> None:
    """The append that was refused tells it; the session and the others' work go on."""
    app = App()
    told: list[str | None] = []
    go = asyncio.Event()

    @app.task
    async def talk(word: str, *, ctx: Context = given) -> None:
        ctx.emit(word)
        try:
            await go.wait()
        except asyncio.CancelledError:
            told.append(ctx.stop_reason)
            raise

    async with stage(app) as on:
        worker = await on.work()
        session, append = on.crew.sessions.current, on.engine.append

        async def picky(batch: Sequence[Append]) -> list[Appended | LeaseLost]:
            answers = await append(batch)
            return [
                LeaseLost() if "lost" in entry.drafts[0][1] else answer
                for entry, answer in zip(batch, answers, strict=True)
            ]

        on.engine.append = picky  # type: ignore[method-assign]
        kept = await on.submit("talk", word="kept")
        await on.submit("talk", word="lost")
        await eventually(lambda: told == ["lost"], "the attempt was stopped")
        await eventually(lambda: worker.snapshot().outcomes == {"lost": 1}, "it is not committed")
        go.set()
        assert (await on.ended(kept)).output == '"kept"'
        assert on.crew.sessions.current is session


async def test_an_append_that_the_engine_cannot_take_harms_nobody_else() -> None:
    """Its attempt is given up, to be rescued; the others' events are written."""
    app = App()
    go = asyncio.Event()

    @app.task
    async def word(n: int) -> AsyncIterator[str]:
        await go.wait()
        yield f"{n}"

    async with stage(app) as on:
        worker = await on.work()
        append = on.engine.append

        async def picky(batch: Sequence[Append]) -> list[Appended | LeaseLost]:
            if any('"1"' in data for entry in batch for _, data in entry.drafts):
                raise RuntimeError("disk of the wrong colour")
            return await append(batch)

        on.engine.append = picky  # type: ignore[method-assign]
        jobs = [await on.submit("word", n=n) for n in range(3)]
        await eventually(lambda: worker.snapshot().running == 3, "all run")
        go.set()
        assert [(await on.ended(jobs[n])).state for n in (0, 2)] == [State.succeeded, State.succeeded]
        assert (await on.job(jobs[1])).state is State.running
        assert worker.snapshot().outcomes["lost"] == 1


async def test_logs_are_lines() -> None:
    """A log event is cut to a line's length; it is no way to store a file."""
    app = App()

    @app.task
    async def work(*, ctx: Context = given) -> None:
        ctx.log("x" * 100_000)

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("work")
        await on.ended(job_id)
        (line,) = await on.data(job_id, "log")
        assert (line["level"], len(line["message"])) == ("info", 8_192)


async def test_a_thread_waiting_for_room_is_let_go_when_it_is_cancelled() -> None:
    """It does not hang on an engine that does not answer."""
    app = App()
    began = threading.Event()
    told: list[str] = []

    @app.task
    def fast() -> Iterator[str]:
        try:
            while True:
                began.set()
                yield "x"
        finally:
            told.append("closed")

    async with stage(app) as on:
        slow = SlowAppends(on)
        await on.work()
        job_id = await on.submit("fast")
        await eventually(lambda: bool(slow.batches), "the engine hangs")
        await on.cancel(job_id)
        async with asyncio.timeout(PATIENCE_S):
            await eventually(lambda: told == ["closed"], "the generator was closed")
        slow.open.set()
        assert (await on.ended(job_id)).state is State.cancelled

"""Following a job, on every transport: the whole log, from anywhere in it, live, to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from client_support import GREET, TRANSPORTS, Hand, Stage, stage

from ropeway.client import Client, EventBody
from ropeway.domain.errors import InvalidRequest
from ropeway.engines.hints import Listener
from ropeway.engines.memory import MemoryEngine
from ropeway.testing import ManualClock
from ropeway.testing.faults import FaultyEngine, scripted


@pytest.fixture(name="on", params=TRANSPORTS)
async def make_stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(request.param, tmp_path) as made:
        yield made


async def test_the_log_is_read_from_its_beginning_to_its_end(on: Stage) -> None:
    """Events come in order, the first is `job.queued`, the last carries the job with its output."""
    job = await on.client.submit(GREET, "Ada")
    assignment = await on.hand.take()
    await on.hand.emit(assignment, ("output.delta", {"index": 0, "delta": "hel"}), ("progress", {"fraction": 0.5}))
    await on.hand.succeed(assignment, {"text": "hello"})
    events = [event async for event in job.events()]
    assert [event.type for event in events] == [
        "job.queued",
        "job.started",
        "output.delta",
        "progress",
        "job.succeeded",
    ]
    assert events[2].data == {"index": 0, "delta": "hel"}
    assert (events[-1].data["state"], events[-1].data["output"]) == ("succeeded", {"text": "hello"})


async def test_reading_goes_on_strictly_after_an_id(on: Stage) -> None:
    """Whatever id a reader stopped at, it gets the rest: nothing twice, nothing lost."""
    job = await on.client.submit(GREET, "Ada")
    assignment = await on.hand.take()
    await on.hand.emit(assignment, *(("output.delta", {"index": n, "delta": "x"}) for n in range(3)))
    await on.hand.succeed(assignment, {"text": "x"})
    whole = [event.id async for event in job.events()]
    for n, last_id in enumerate(whole):
        assert [event.id async for event in job.events(after=last_id)] == whole[n + 1 :]


async def test_a_reader_follows_live(on: Stage) -> None:
    """What happens after the reader came reaches it, as it happens."""
    job = await on.client.submit(GREET, "Ada")
    events = job.events()
    assert (await anext(events)).type == "job.queued"
    assignment = await on.hand.take()
    assert (await anext(events)).type == "job.started"
    for n in range(3):
        waiting = asyncio.ensure_future(anext(events))
        await on.hand.emit(assignment, ("output.delta", {"index": n, "delta": "x"}))
        assert (await waiting).data["index"] == n
    await on.hand.succeed(assignment, {"text": "x"})
    assert [event.type async for event in events] == ["job.succeeded"]


async def test_a_log_longer_than_a_page_is_read_whole(on: Stage) -> None:
    """Many events are many pages to the transport and one stream to the reader."""
    job = await on.client.submit(GREET, "Ada")
    assignment = await on.hand.take()
    for start in range(0, 1200, 100):
        drafts = (("output.delta", {"index": n, "delta": "x"}) for n in range(start, start + 100))
        await on.hand.emit(assignment, *drafts)
    await on.hand.succeed(assignment, {"text": "x"})
    events: list[EventBody] = [event async for event in job.events()]
    assert [event.data["index"] for event in events if event.type == "output.delta"] == list(range(1200))


async def test_what_is_no_event_id_is_refused(on: Stage) -> None:
    """A cursor that is none of ours is told, not read as the beginning."""
    job = await on.client.submit(GREET, "Ada")
    with pytest.raises(InvalidRequest):
        await anext(job.events(after="yesterday"))


class _Deaf(FaultyEngine):
    """An engine none of whose hints arrive."""

    def listen(self, *topics: str) -> Listener:
        return super().listen("nothing")


async def _turn() -> None:
    """Let the loop turn once."""
    await asyncio.sleep(0)


async def _last(events: AsyncIterator[EventBody]) -> EventBody:
    return [event async for event in events][-1]


@pytest.mark.parametrize(("way", "topic", "found"), [("get", "end", "its end"), ("read", "job", "progress")])
async def test_what_no_hint_told_of_is_told_in_the_log(
    way: str, topic: str, found: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A waiter on an engine looks now and then all the same; the log names the topic whose hint did not come."""
    monkeypatch.setattr("ropeway.client.local.SAFETY_S", 0.01)
    caplog.set_level("INFO", "ropeway.client")
    later, hand = ManualClock(), Hand(engine := MemoryEngine(ManualClock()))
    later.advance(s=9)
    await engine.open()
    await hand.announce()
    deaf = _Deaf(engine, scripted())
    async with Client(deaf, clock=later) as client:
        job = await client.submit("greet", name="Ada")
        work = await hand.take()
        waiting = asyncio.create_task(job.result() if way == "get" else _last(job.events()))
        async with asyncio.timeout(10):
            while deaf.calls[way] < 3:
                await _turn()
        caplog.clear()  # a first look may come before what is hinted at then
        await hand.emit(work, ("progress", {"fraction": 0.5}))
        await hand.succeed(work, 1)
        await waiting
    await engine.shut()
    told = caplog.messages[0]
    assert told.startswith(f"no hint on {topic}:{job.id} came: {found}")
    assert told.endswith(" was found by looking all the same, after 9.0 s")

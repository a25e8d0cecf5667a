"""Reading for many at once: one call for those of a moment, each with its own answer and its own trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from serving_support import Stage, stage, turn, until

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.event import START, Cursor, Event
from ropeway.domain.log import EventPage, LogQuery
from ropeway.engines.base import Engine
from ropeway.engines.memory import MemoryEngine
from ropeway.serving.alarms import AT_ONCE, Alarms
from ropeway.serving.rounds import BUSY_S, MOST_REST_S, READS_AT_ONCE, Rounds, rest_s
from ropeway.serving.streams import FIRST_EVENTS, PAGE_BYTES, PAGE_EVENTS, next_limit
from ropeway.testing.faults import FaultyEngine, scripted

TENANT = "default"


class Picky(MemoryEngine):
    """Knows two jobs it cannot read: one fails, with every call that asks for it; one takes until `gate` opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.calls: list[int] = []

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        return (await self.read_many([LogQuery(tenant, job_id, after, limit)]))[0]

    async def read_many(self, queries: Sequence[LogQuery]) -> list[EventPage | None]:
        self.calls.append(len(queries))
        asked = {query.job_id for query in queries}
        if "bad" in asked:
            raise EngineUnavailable("the server of that one is away")
        if "slow" in asked:
            await self.gate.wait()
        return [EventPage((), query.job_id == "ended") for query in queries]


async def test_those_who_ask_together_are_read_for_together() -> None:
    """A few dozen a call, each answered in its place; who asks alone is read for alone."""
    engine = Picky()
    rounds = Rounds(engine)
    names = ["ended" if n % 3 else "live" for n in range(READS_AT_ONCE * 2 + 1)]
    pages = await asyncio.gather(*(rounds.read(TENANT, name, START, 9) for name in names))
    assert [page is not None and page.ended for page in pages] == [name == "ended" for name in names]
    assert engine.calls == [READS_AT_ONCE, READS_AT_ONCE, 1]
    await rounds.read(TENANT, "live", START, 9)
    assert engine.calls[3:] == [1]


async def test_the_trouble_of_one_is_not_that_of_the_others() -> None:
    """A call that fails for all is made again for each."""
    rounds = Rounds(Picky())
    answers = await asyncio.gather(
        *(rounds.read(TENANT, name, START, 9) for name in ("live", "bad", "ended")), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [EventPage, EngineUnavailable, EventPage]


async def test_who_must_wait_for_the_engine_holds_up_nobody() -> None:
    """Its call is waited for aside; the next rounds go on."""
    engine = Picky()
    rounds = Rounds(engine)
    slow = asyncio.create_task(rounds.read(TENANT, "slow", START, 9))
    await until(lambda: bool(engine.calls))
    assert (await rounds.read(TENANT, "live", START, 9)) == EventPage((), False)
    assert not slow.done()
    engine.gate.set()
    assert (await slow) == EventPage((), False)


async def test_who_has_gone_is_not_read_for() -> None:
    """A reader that left before its round."""
    engine = Picky()
    rounds = Rounds(engine)
    asked = [asyncio.create_task(rounds.read(TENANT, "live", START, 9)) for _ in range(3)]
    await turn()
    asked[1].cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert engine.calls == [2]


def test_a_page_has_about_so_many_bytes() -> None:
    """However large the events are; what is known of their size comes from the page before, so it grows slowly."""

    def events(size: int) -> list[Event]:
        return [Event(Cursor(1, n), "output.delta", "job_x", 1, 0, "x" * size) for n in range(4)]

    assert next_limit(FIRST_EVENTS, events(20)) == FIRST_EVENTS * 4
    assert next_limit(PAGE_EVENTS, events(20)) == PAGE_EVENTS
    assert next_limit(PAGE_EVENTS, events(PAGE_BYTES // 8)) in (7, 8)
    assert next_limit(PAGE_EVENTS, events(PAGE_BYTES * 4)) == 1
    assert next_limit(1, events(20)) == 4


def test_a_gateway_rests_as_long_as_its_round_took() -> None:
    """Not at all when that was short, and a tenth of a second at the most."""
    assert rest_s(BUSY_S) == 0
    assert rest_s(2 * BUSY_S) == 2 * BUSY_S
    assert rest_s(3.0) == MOST_REST_S


async def test_a_crowd_of_readers_is_served_by_few_calls() -> None:
    """A hundred streams that hear of something in the same moment; each gets all of its own, in order."""
    counted: list[FaultyEngine] = []

    def wrap(engine: Engine) -> Engine:
        counted.append(FaultyEngine(engine, scripted()))
        return counted[0]

    async with stage(wrap=wrap) as s:
        jobs = [await s.submit() for _ in range(100)]
        calls = [s.call("GET", f"/v1/jobs/{job_id}/events") for job_id in jobs]
        for call in calls:
            await call.__aenter__()
        for call in calls:
            await call.blocks(1)
        before = counted[0].calls.copy()
        await _work(s, len(jobs), deltas=5)
        stories = [await call.all_blocks() for call in calls]
        for call in calls:
            await call.__aexit__()
        for job_id, blocks in zip(jobs, stories, strict=True):
            assert {block.data["job_id"] for block in blocks} == {job_id}
            assert [block.data["data"] for block in blocks if block.event == "output.delta"] == list(range(5))
            assert blocks[-1].event == "job.succeeded"
        read = counted[0].calls - before
        assert read["read"] + read["read_many"] < 100 * 7, "fewer calls than readers times events"
        assert read["read_many"] > 0


async def _work(s: Stage, jobs: int, deltas: int) -> None:
    """Every job's events, the jobs side by side."""
    held = [await s.hand.take() for _ in range(jobs)]
    for n in range(deltas):
        for assignment in held:
            await s.hand.emit(assignment, ("output.delta", n))
        await turn()
    for assignment in held:
        await s.hand.succeed(assignment, "done")


class Sleeper:
    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


@pytest.mark.parametrize("count", [1, AT_ONCE * 2 + 50])
async def test_all_whose_time_has_come_are_woken_once(count: int) -> None:
    """A few at a time, but all of them; not those whose time is later, and not those who were dropped."""
    alarms = Alarms(0.001)
    early, late, gone = [Sleeper() for _ in range(count)], Sleeper(), Sleeper()
    alarms.set(gone, 0)
    alarms.set(late, 3600)
    for sleeper in early:
        alarms.set(sleeper, 3600)
        alarms.set(sleeper, 0)
    alarms.drop(gone)
    await until(lambda: all(sleeper.woken for sleeper in early))
    assert {sleeper.woken for sleeper in early} == {1}
    assert (late.woken, gone.woken) == (0, 0)

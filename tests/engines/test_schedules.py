"""Schedules as records: pages, changes that meet, and what is left of a removed one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.schedule import Plan, Schedule, ScheduleNotFound, Timing
from ropeway.engines.memory import MemoryEngine
from ropeway.engines.schedules import Held, Schedules
from ropeway.testing import ManualClock, seeded_random

DAY_MS = 86_400_000


@pytest.fixture(name="clock")
def make_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(name="engine")
async def make_engine(clock: ManualClock) -> AsyncIterator[MemoryEngine]:
    engine = MemoryEngine(clock, seeded_random("engine"))
    await engine.open()
    yield engine
    await engine.shut()


def a_schedule(name: str, tenant: str = "acme") -> Schedule:
    return Schedule(tenant, name, f"uid-{name}", Timing(interval_ms=1000), Plan("task"), 0, 0)


async def test_tenants_whose_names_are_alike_are_apart(engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every page, however their names sort; removed ones are in none."""
    monkeypatch.setattr("ropeway.engines.schedules.PAGE", 2)
    schedules = Schedules(engine)
    for tenant in ("acme", "acme-x", "acme.x", "acme0", "acmf"):
        for name in ("b", "a", "c", "d", "e"):
            assert await schedules.make(a_schedule(name, tenant))
    await schedules.remove("acme", "b", lambda _: None)
    assert [one.name for one in await schedules.of("acme")] == ["a", "c", "d", "e"]
    assert [one.id for one in await schedules.of("acme-x")] == [f"acme-x/{name}" for name in "abcde"]
    assert len([held async for held in schedules.every()]) == 24


async def test_a_removed_one_cannot_be_brought_back(engine: MemoryEngine, clock: ManualClock) -> None:
    """By who read it before, also when one of its name was made since; its name is free at once."""
    schedules = Schedules(engine)
    await schedules.make(a_schedule("s"))
    read = await schedules.get("acme", "s")
    await schedules.remove("acme", "s", lambda _: None)
    with pytest.raises(ScheduleNotFound):
        await schedules.get("acme", "s")
    with pytest.raises(ScheduleNotFound):
        await schedules.remove("acme", "s", lambda _: None)
    assert await schedules.store([read]) == [False]
    assert await schedules.make(msgspec.structs.replace(a_schedule("s"), uid="new"))
    assert await schedules.store([read]) == [False]
    await schedules.remove("acme", "s", lambda _: None)
    clock.advance(ms=DAY_MS)
    assert await engine.scan("schedule", "", "", 10) == [], "a day later nothing is left of it"


async def test_a_change_is_made_over_whatever_is_there_by_then(engine: MemoryEngine) -> None:
    """Another's write in between is not lost; one that changes nothing writes nothing."""
    schedules = Schedules(engine)
    await schedules.make(a_schedule("s"))
    met: list[int] = []

    def changed(known: Schedule) -> Schedule:
        met.append(known.fired)
        if len(met) == 1:  # somebody else is faster
            store = engine._store.records
            ((key, record),) = [(k, r) for k, r in store.items() if k.kind == "schedule"]
            other = msgspec.json.encode(msgspec.structs.replace(known, fired=7)).decode()
            store[key] = msgspec.structs.replace(record, body=other, version=record.version + 1)
        return msgspec.structs.replace(known, paused=True)

    after = await schedules.change("acme", "s", changed)
    assert (met, after.fired, after.paused) == ([0, 7], 7, True)
    version = (await schedules.get("acme", "s")).version
    await schedules.change("acme", "s", lambda known: known)
    assert (await schedules.get("acme", "s")).version == version


async def test_one_that_never_rests_is_given_up(engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a hundred tries, as EngineUnavailable; a name that was taken in the same moment is not made."""
    schedules = Schedules(engine)
    await schedules.make(a_schedule("s"))

    async def refused(changed: list[Held]) -> list[bool]:
        return [False] * len(changed)

    monkeypatch.setattr(schedules, "store", refused)
    with pytest.raises(EngineUnavailable, match="too many at once"):
        await schedules.change("acme", "s", lambda known: msgspec.structs.replace(known, paused=True))
    assert await schedules.make(a_schedule("other")) is False

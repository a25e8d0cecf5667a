"""Records and buckets against the reference: seeded histories, with engines that die inside a call.

A call that was cut off has happened or has not: what the engine then holds must be what the reference holds before it,
or after it, record by record; what it has is taken over, so that the history goes on from there.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest

from harnesses import SharedRedisHarness, SharedSpreadHarness, SharedSqliteHarness, SqliteHarness
from redis_harness import RedisHarness, RedisServerHarness, SpreadHarness
from ropeway.domain.bucket import Allowance, Spend
from ropeway.domain.record import Put, Record, RecordKey
from ropeway.engines.base import Engine
from ropeway.engines.memory import MemoryEngine
from ropeway.testing.clock import ManualClock
from ropeway.testing.harness import FailpointHarness
from ropeway.testing.random import seeded_random

HARNESSES: list[FailpointHarness] = [
    SqliteHarness(),
    SharedSqliteHarness(),
    RedisHarness(),
    RedisServerHarness(),
    SharedRedisHarness(),
    SpreadHarness(),
    SharedSpreadHarness(),
]
SEEDS = range(6)
STEPS = 60
PLACES = (("file", "a"), ("file", "b"), ("key", ""))
IDS = ("x", "x/1", "y", "é")
BUCKETS = ("a/calls", "a/tokens")

Call = tuple[str, tuple[Any, ...]]


class Whole(NamedTuple):
    """All that there is: records by key, and what is left in each bucket."""

    records: dict[RecordKey, Record]
    left: list[tuple[bool, float, float]]


class Story:
    """One history: the same calls to the engine under test and to the reference, on one clock."""

    def __init__(self, seed: int, harness: FailpointHarness) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.harness = harness
        self.reference = MemoryEngine(self.clock)
        self.known: list[int] = [0]

    async def run(self) -> None:
        await self.reference.open()
        self.engine = await self.harness.start(self.clock, seeded_random(1))
        try:
            for _ in range(STEPS):
                await self.step()
        finally:
            await self.harness.stop(self.engine)

    async def step(self) -> None:
        luck = self.rng.random()
        if luck < 0.15:
            self.clock.advance(self.rng.choice((1, 40, 700, 5000)))
        elif luck < 0.2:
            self.clock.jump(-self.rng.choice((1, 300)))
        elif luck < 0.25:
            self.engine = await self.harness.crash(self.engine)
        elif luck < 0.4:
            await self.die(self.call())
        else:
            call = self.call()
            assert await answer(self.engine, call) == await answer(self.reference, call), call
        assert await whole(self.engine) == await whole(self.reference)

    def call(self) -> Call:
        """One of the role's methods, on names so few that they collide."""
        match self.rng.choice(("put", "put", "put", "drop", "fetch", "scan", "spend", "spend", "prune")):
            case "put":
                return "put", ([self.put() for _ in range(self.rng.randint(1, 4))],)
            case "drop" | "fetch" as method:
                return method, ([self.key() for _ in range(self.rng.randint(1, 3))],)
            case "scan":
                return "scan", (*self.rng.choice(PLACES), self.rng.choice(("", *IDS)), self.rng.randint(1, 4))
            case "spend":
                return "spend", ([self.spend() for _ in range(self.rng.randint(1, 3))],)
            case _:
                return "prune", (self.rng.choice((1, 100)),)

    def put(self) -> Put:
        expected = self.rng.choice((None, 0, 1, 2, 3))
        return Put(self.key(), str(self.rng.random()), expected, self.rng.choice((None, None, 30, 1000)))

    def key(self) -> RecordKey:
        return RecordKey(*self.rng.choice(PLACES), self.rng.choice(IDS))

    def spend(self) -> Spend:
        amount, capacity = self.rng.choice((0, 1, 2.5, 9, 30, -3)), self.rng.choice((10, 10, 20))
        return Spend(self.rng.choice(BUCKETS), amount, self.rng.choice((0.5, 3)), capacity, self.rng.random() < 0.3)

    async def die(self, call: Call) -> None:
        """The engine dies inside the call; the reference then holds what the engine does, if that can be."""
        before = await whole(self.reference)
        buckets, records = dict(self.reference._store.buckets), dict(self.reference._store.records)
        self.engine = await self.harness.die(
            self.engine, self.rng.choice(self.harness.failpoints), lambda: answer(self.engine, call)
        )
        await answer(self.reference, call)
        after, found = await whole(self.reference), await whole(self.engine)
        assert found.left in (before.left, after.left), call
        if found.left != after.left:
            self.reference._store.buckets = buckets
        for key in {*before.records, *after.records, *found.records}:
            record = found.records.get(key)
            assert record in (before.records.get(key), after.records.get(key)), (call, key)
            if record != after.records.get(key):
                self.take_back(key, records.get(key))

    def take_back(self, key: RecordKey, record: Record | None) -> None:
        store = self.reference._store
        if record is not None:
            store.keep_record(record)
        elif key in store.records:
            store.drop_record(key)


async def answer(engine: Engine, call: Call) -> object:
    """What a call is answered; of rates so much as two ways of counting agree on."""
    method, args = call
    told = await getattr(engine, method)(*args)
    return rounded(told) if method == "spend" else told


async def whole(engine: Engine) -> Whole:
    records = [record for place in PLACES for record in await engine.scan(*place)]
    left = [rounded(await engine.spend([Spend(bucket, 0, 0.5, 20)])) for bucket in BUCKETS]
    return Whole({record.key: record for record in records}, [told for some in left for told in some])


def rounded(told: list[Allowance]) -> list[tuple[bool, float, float]]:
    return [(each.granted, round(each.left, 6), each.retry_after_s) for each in told]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.name)
async def test_every_engine_keeps_what_the_reference_keeps(harness: FailpointHarness, seed: int) -> None:
    """Whatever is put, dropped and spent, at any time, and wherever the engine dies."""
    await Story(seed, harness).run()

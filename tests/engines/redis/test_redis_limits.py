"""Limits on the server: what a lost reply does to them, how much one script does, and what partitions make of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from redis_harness import RedisHarness, SpreadHarness
from ropeway.domain.job import JobOptions, JobQuery
from ropeway.domain.lease import Commit, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import Limit, LimitPolicy, LimitSignal, LimitState
from ropeway.engines.redis import RedisEngine
from ropeway.testing.bench import QUEUE, SESSION, TENANT, Bench

ONE = Limit("gpt", max_running=1)
RATE = Limit("calls", per_s=1.0, burst=10.0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = await Bench.start(RedisHarness())
    yield bench
    await bench.stop()


@pytest.fixture
async def spread() -> AsyncIterator[Bench]:
    """Over three partitions."""
    bench = await Bench.start(SpreadHarness())
    yield bench
    await bench.stop()


async def add(bench: Bench, count: int, *limits: Limit) -> list[str]:
    jobs = await bench.submit(*(bench.new(options=JobOptions(limits=limits)) for _ in range(count)))
    return [job.id for job in jobs]


async def script(bench: Bench, name: str, *args: str | int) -> list[Any]:
    """What the first partition's script answers; called as the engine repeats a call whose reply was lost."""
    return (await cast(RedisEngine, bench.engine).partitions[0].call(name, *args)).values


async def test_a_lease_that_is_repeated_takes_of_its_limits_once(bench: Bench) -> None:
    """The repeat is answered as the first was: the same job, still one place and one amount taken."""
    both = Limit("both", max_running=2, per_s=1.0, burst=10.0)
    await add(bench, 2, both, ONE)
    first = await script(bench, "lease", SESSION, "w", 5, "random.", QUEUE)
    held = await bench.engine.limits()
    again = await script(bench, "lease", SESSION, "w", 5, "random.", QUEUE)
    assert [first[1], first[6]] == [again[1], again[6]] == ["job_001", "random.0"]
    assert await bench.engine.limits() == held
    assert [(state.key, state.running, state.level, state.parked) for state in held] == [
        ("both", 1, 9.0, 0),
        ("gpt", 1, None, 1),
    ]


async def test_a_signal_that_is_repeated_counts_once(bench: Bench) -> None:
    """What is left is lowered to what was told, not by it, and a pause is as long as it was told."""
    await add(bench, 1, RATE)
    await bench.lease_one()
    for _ in range(2):
        await bench.engine.signal([LimitSignal(RATE, left=4.0, pause_ms=500)])
        (state,) = await bench.engine.limits()
        assert (state.level, state.paused_until_ms) == (4.0, bench.clock.now_ms() + 500)


async def test_one_script_calls_some_hundred_at_the_most(bench: Bench) -> None:
    """Of a long line that may all go on at once: the others are called by the next promote, which is due at once."""
    await add(bench, 700, ONE)
    for _ in range(4):
        await bench.lease(1)
    (state,) = await bench.engine.set_limits({"gpt": LimitPolicy()})
    assert state.parked == 699 - 256
    assert (await bench.engine.promote(1000)).moved == 699 - 256
    assert len(await bench.lease(1000)) == 699


async def test_places_that_become_free_together_are_given_once(bench: Bench) -> None:
    """Many commits in one script: as many are called back as there is room for, not for each of them anew."""
    await add(bench, 40, Limit("gpt", max_running=10))
    held = await bench.lease(40)
    outcomes = [Commit(each.lease, Outcome("succeeded")) for each in held]
    assert await bench.engine.commit(outcomes) == [State.succeeded] * 10
    (state,) = await bench.engine.limits()
    assert (state.running, state.parked) == (0, 20)
    assert len(await bench.lease(40)) == 10


async def test_parked_jobs_are_listed_and_counted(bench: Bench) -> None:
    """They are queued as others are: a list of those has them, and the oldest may be among them."""
    ids = await add(bench, 3, ONE)
    await bench.lease(3)
    bench.clock.advance(1000)
    await bench.add("free")
    page = await bench.engine.find(JobQuery(TENANT, states=(State.queued,)))
    assert [job.id for job in page.jobs] == ["free", ids[2], ids[1]]
    stats = await bench.stats()
    assert (stats.queued, stats.oldest_queued_at_ms) == (3, bench.clock.now_ms() - 1000)


async def test_a_bucket_is_forgotten_when_it_is_full_again(bench: Bench) -> None:
    """There may be a key for each user: a prune drops those of which nothing need be known."""
    await bench.commit(await bench.start_job(options=JobOptions(limits=(RATE,))))
    bench.clock.advance(999)
    await bench.engine.prune(10)
    assert await bench.engine.limits() == [LimitState("calls", level=9.0, at_ms=bench.clock.now_ms() - 999)]
    bench.clock.advance(1)
    await bench.engine.prune(10)
    assert await bench.engine.limits() == []


async def test_partitions_keep_a_limit_each(spread: Bench) -> None:
    """What one allows may start in every partition; what is told of it is the sum, and all hear what is set."""
    await add(spread, 60, ONE)
    assert len(await spread.lease(60)) == 3
    assert await spread.engine.limits() == [LimitState("gpt", running=3, parked=57)]
    (state,) = await spread.engine.set_limits({"gpt": LimitPolicy(max_running=2)})
    assert state == LimitState("gpt", running=3, policy=LimitPolicy(max_running=2), parked=54)
    assert len(await spread.lease(60)) == 3


async def test_all_partitions_hear_a_signal(spread: Bench) -> None:
    """A key that its provider paused is paused in every partition, for those that wait there."""
    await add(spread, 30, RATE)
    await spread.engine.signal([LimitSignal(RATE, left=2.0, pause_ms=1000)])
    assert await spread.lease(30) == []
    spread.clock.advance(1000)
    await spread.engine.promote(100)
    assert len(await spread.lease(30)) == 9, "of each bucket what was told to be left, and a second's refill"

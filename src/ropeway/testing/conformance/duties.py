"""What one worker does for all, and the catalogue of tasks."""

from __future__ import annotations

import asyncio

from ropeway.domain.job import JobOptions
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.domain.worker import TaskCard
from ropeway.testing.bench import Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []


@promise
async def a_duty_has_one_holder(bench: Bench) -> None:
    """A free duty is taken, kept by renewing it, and refused to others until its time is over, to the millisecond."""
    elect = bench.engine.elect
    assert await elect("upkeep", "a", 1000)
    assert not await elect("upkeep", "b", 1000)
    bench.clock.advance(999)
    assert not await elect("upkeep", "b", 1000)
    assert await elect("upkeep", "a", 1000)
    bench.clock.advance(999)
    assert not await elect("upkeep", "b", 1000)
    bench.clock.advance(1)
    assert await elect("upkeep", "b", 1000)
    assert not await elect("upkeep", "a", 1000)


@promise
async def duties_are_apart(bench: Bench) -> None:
    """One holder's duty says nothing of another duty."""
    assert await bench.engine.elect("upkeep", "a", 1000)
    assert await bench.engine.elect("webhooks", "b", 1000)
    assert not await bench.engine.elect("webhooks", "a", 1000)


@promise
async def one_of_many_is_elected(bench: Bench) -> None:
    """Of many that ask at the same time exactly one is elected."""
    votes = await asyncio.gather(*(bench.engine.elect("upkeep", f"w{n}", 1000) for n in range(20)))
    assert votes.count(True) == 1


@promise
async def the_catalogue_is_kept_by_name(bench: Bench) -> None:
    """Published tasks are told in the order of their names, every field; a card of the same name replaces."""
    full = TaskCard(
        "b.full",
        "gpu",
        '{"type":"object"}',
        '{"type":"string"}',
        True,
        "thread",
        "Draws — 🚠.",
        JobOptions(timeout_s=2, retry=Retry(max_attempts=9), tags=("x",)),
        Priority.high,
    )
    await bench.engine.publish([full, TaskCard("a")])
    await bench.engine.publish([TaskCard("a", doc="new"), TaskCard("c")])
    assert await bench.engine.tasks() == [TaskCard("a", doc="new"), full, TaskCard("c")]

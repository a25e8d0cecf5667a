"""Seeded histories break no promise: fixed seeds, seeds that are new with every change, and those that failed once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from handover import HandoverHarness

from harnesses import SharedRedisHarness, SharedSqliteHarness, SqliteHarness
from redis_harness import ClusterHarness, RedisHarness, SpreadHarness
from ropeway.testing.harness import DurableHarness
from ropeway.testing.history import check, drive
from ropeway.testing.history.invariants import INVARIANTS
from ropeway.testing.history.seeds import KeptSeed, assert_clean, kept_seeds, seeds_of_sources

SEEDS = Path(__file__).parent.parent / "seeds"
CHUNK = 125  # histories a test: a failure names a part, and the count shows progress
COUNTS = {
    "memory": 1000,
    "sqlite": 75,
    "sqlite-shared": 25,
    "valkey": 50,
    "valkey-shared": 25,
    "cluster": 10,
    "spread": 15,
}
HARNESSES: dict[str, Callable[[], DurableHarness]] = {
    "memory": HandoverHarness,
    "sqlite": SqliteHarness,
    "sqlite-shared": SharedSqliteHarness,
    "valkey": RedisHarness,
    "valkey-shared": SharedRedisHarness,
    "cluster": ClusterHarness,
    "spread": SpreadHarness,
}
OF_ONE_LINE = {"D1", "F1", "Q1", "R1", "R2"}
"""Depths, fair tags, limits, turns and positions: over several partitions each keeps those of its own line."""


def harness(engine: str) -> DurableHarness:
    return HARNESSES[engine]()


def invariants(engine: str) -> list[str]:
    """What a history on this engine must not break."""
    return [name for name in INVARIANTS if engine != "spread" or name not in OF_ONE_LINE]


def chunks() -> list[tuple[str, range]]:
    """The histories to run, in parts: engine, and the numbers of the histories."""
    return [
        (engine, range(start, min(start + CHUNK, count)))
        for engine, count in COUNTS.items()
        for start in range(0, count, CHUNK)
    ]


@pytest.mark.parametrize(("engine", "numbers"), chunks())
async def test_fixed_seeds(engine: str, numbers: range) -> None:
    """The same histories on every run break nothing."""
    for seed in numbers:
        await assert_clean(seed, harness(engine), SEEDS, invariants=invariants(engine))


@pytest.mark.parametrize(("engine", "numbers"), chunks())
async def test_fresh_seeds(engine: str, numbers: range) -> None:
    """Histories that are others with every change of the sources break nothing."""
    seeds = seeds_of_sources(numbers.stop)
    for number in numbers:
        await assert_clean(seeds[number], harness(engine), SEEDS, invariants=invariants(engine))


@pytest.mark.parametrize("kept", kept_seeds(SEEDS), ids=lambda kept: f"{kept.engine}-{kept.seed}")
async def test_kept_seeds(kept: KeptSeed) -> None:
    """What failed once does not fail again, on any engine."""
    for engine in COUNTS:
        assert check(await drive(kept.seed, harness(engine), kept.length), invariants(engine)) == []


@pytest.mark.parametrize("engine", ["memory", "sqlite", "valkey"])
@pytest.mark.parametrize("seed", [3, 4, 5])
async def test_a_seed_is_a_history(engine: str, seed: int) -> None:
    """The same seed twice gives the same history, call by call and byte by byte: nothing reads time or chance.

    Not so where two engines share a file: which of two calls at the same time comes first is theirs to settle.
    """
    first, second = [await drive(seed, harness(engine)) for _ in range(2)]
    assert list(first.lines()) == list(second.lines())
    assert [step.look for step in first.steps] == [step.look for step in second.steps]
    assert (first.logs, first.observations, first.stats) == (second.logs, second.observations, second.stats)

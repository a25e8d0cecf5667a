"""The SQLite engine against its oracle, the memory engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle import Oracle

from ropeway.engines.memory import MemoryEngine
from ropeway.engines.sqlite import SqliteEngine
from ropeway.engines.sqlite.fsck import inspect
from ropeway.testing.clock import ManualClock
from ropeway.testing.random import seeded_random


@pytest.mark.parametrize("seed", range(12))
async def test_it_answers_as_the_memory_engine_does(tmp_path: Path, seed: int) -> None:
    """Whatever is done, in whichever order and in batches: both engines answer the same, and end up the same."""
    clock = ManualClock()
    truth = MemoryEngine(clock, seeded_random(seed))
    subject = SqliteEngine(tmp_path / "jobs.db", clock, seeded_random(seed))
    await truth.open()
    await subject.open()
    try:
        await Oracle(seed, truth, subject, clock).play(150)
        assert inspect(tmp_path / "jobs.db") == []
    finally:
        await subject.shut()
        await truth.shut()

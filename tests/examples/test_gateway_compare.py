"""The comparison of the gateway with plain streaming: that it measures, and what it prints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from examples.gateway.compare import Row, compare, medians, table
from examples.gateway.load import Load, ask_many
from examples.gateway.upstream import Rhythm, simulated

ROOT = Path(__file__).parent.parent.parent


async def test_every_word_is_timed_from_the_provider_to_its_reader() -> None:
    """On this machine's monotonic clock; an answer that broke counts as failed."""
    load = Load(requests=6, concurrency=3, words=4)
    async with simulated(Rhythm(words=4, first_s=0, word_s=0)) as (url, provider):
        seen = await ask_many(url, "/chat/completions", load)
        assert (seen.failed, len(seen.first_s), len(seen.late_s), provider.peak) == (0, 6, 24, 3)
        assert min(seen.late_s) > 0
    async with simulated(Rhythm(words=4, first_s=0, word_s=0, cut=1.0)) as (url, _):
        assert (await ask_many(url, "/chat/completions", load)).failed == 6


@pytest.mark.slow
def test_all_ways_are_measured_in_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Straight, plain FastAPI, direct and queued, each in a process of its own; nothing fails."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    load = Load(requests=10, concurrency=5, words=5)
    rows = compare(load, 0.01, 0.001, ["memory:", "sqlite:"])
    assert [row.way for row in rows] == [
        "straight from the provider",
        "plain FastAPI",
        "direct, memory",
        "queued, sqlite",
    ]
    assert [row.failed for row in rows] == [0] * 4
    assert rows[0].cpu_word_us is None
    assert len(table(rows, load).splitlines()) == 7


def test_runs_come_together_in_their_medians() -> None:
    """Figure by figure; what failed in any run is told."""
    runs = [[Row("w", n, 1, None, None, n, 2, 3, 4)] for n in (0, 5, 1)]
    assert medians(runs) == [Row("w", 6, 1, None, None, 1, 2, 3, 4)]


def test_the_table_tells_what_each_way_adds() -> None:
    """Against the provider's own, in the same run."""
    rows = [Row("straight", 0, 10, None, None, 1, 2, 0.5, 1.0), Row("queued", 0, 10, 80.0, 4000.0, 3, 4, 2.0, 5.0)]
    last = table(rows, Load(1, 1, 1)).splitlines()[-1]
    assert last == "| queued | 80 | 4,000 | 3 / 4 | 2.00 / 5.00 | 1.50 | 0 |"

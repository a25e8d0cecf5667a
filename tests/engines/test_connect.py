"""From URLs to engines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.lease import LeaseRequest
from ropeway.domain.worker import WorkerCard
from ropeway.engines.connect import connect
from ropeway.engines.memory import MemoryEngine
from ropeway.engines.sqlite import SqliteEngine
from ropeway.testing.clock import ManualClock
from ropeway.testing.random import seeded_random


def test_memory_is_the_memory_engine() -> None:
    """`memory:` names the engine in this process."""
    engine = connect("memory:")
    assert isinstance(engine, MemoryEngine)
    assert engine.info.durability == "memory"


async def test_a_relative_path_is_under_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sqlite:PATH` is relative to where the process was when it asked, wherever it goes later."""
    monkeypatch.chdir(tmp_path)
    engine = connect("sqlite:jobs.db")
    monkeypatch.chdir(os.sep)
    await engine.open()
    await engine.shut()
    assert isinstance(engine, SqliteEngine)
    assert engine.info.url == "sqlite:jobs.db"
    assert [path.name for path in _files(tmp_path)] == ["jobs.db"]


@pytest.mark.parametrize("form", ["sqlite://{}", "sqlite:{}"])
async def test_an_absolute_path_is_itself(tmp_path: Path, form: str) -> None:
    """`sqlite:///PATH` is absolute, and so is `sqlite:/PATH`."""
    engine = connect(form.format(tmp_path / "jobs.db"))
    await engine.open()
    await engine.shut()
    assert [path.name for path in _files(tmp_path)] == ["jobs.db"]


@pytest.mark.parametrize("url", ["memory:", "sqlite:{}/jobs.db"])
async def test_clock_and_randomness_can_be_given(tmp_path: Path, url: str) -> None:
    """An engine takes its time and its lease tokens from where it is told to."""
    clock = ManualClock()
    engine = connect(url.format(tmp_path), clock=clock, random=seeded_random(7))
    await engine.open()
    await engine.announce(WorkerCard("s", "w", ("q",), ttl_ms=1000))
    assert [(card.started_at_ms, card.expires_at_ms) for card in await engine.workers()] == [
        (clock.now_ms(), clock.now_ms() + 1000)
    ]
    assert await engine.lease(LeaseRequest("s", "w", ("q",), 1)) == []
    await engine.shut()


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("redis://localhost:x", "no port"),
        ("rediss://localhost:6379/0?nonsense=1", "unknown option nonsense"),
        ("postgresql://localhost/jobs", "not built in yet"),
        ("", "use memory:, sqlite:PATH"),
        ("ropeway.db", "use memory:, sqlite:PATH"),
        ("sqlite", "use memory:, sqlite:PATH"),
        ("memory:jobs", "use memory:, sqlite:PATH"),
        ("sqlite:", "names no file"),
        ("sqlite::memory:", "names no file"),
        ("sqlite://jobs.db", "write sqlite:///PATH"),
        ("sqlite:jobs.db?mode=ro", "takes no options"),
    ],
)
def test_anything_else_is_refused_with_a_remedy(url: str, remedy: str) -> None:
    """A URL that names no engine is the caller's mistake, and the message says what would do."""
    with pytest.raises(InvalidRequest, match=remedy) as told:
        connect(url)
    assert told.value.param == "engine"


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_file()]

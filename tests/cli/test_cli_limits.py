"""`ropeway limits` and `ropeway queues set`, on an engine and through a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import APPLICATION, Process
from cli_support import lines_of, publish, run

from ropeway.cli.exits import Exit


@pytest.fixture(name="store")
def make_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The options that name a store by its file."""
    (tmp_path / "served.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROPEWAY_KEY", raising=False)
    publish("sqlite:ropeway.db")
    return "--engine", "sqlite:ropeway.db"


@pytest.fixture(name="engine", params=["store", "gateway"])
def make_engine(request: pytest.FixtureRequest, store: tuple[str, str], tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The options that name it: by its file, or by a gateway on it."""
    if request.param == "store":
        yield store
        return
    process = Process(tmp_path, "api", "served:app", *store, "--port", "0")
    try:
        yield "--url", process.ready()["url"]
    finally:
        process.close()


def test_limits_are_set_shown_and_cleared(engine: tuple[str, str]) -> None:
    """A rate by the minute, which holds a minute's worth unless told otherwise; and how many at once."""
    assert lines_of(run("limits", "list", "--json", *engine)) == []
    (told,) = lines_of(run("limits", "set", "openai:tokens", "--per-min", "90000", "--json", *engine))
    assert told["policy"] == {"max_running": None, "per_s": 1500.0, "burst": 90000.0}
    run("limits", "set", "gpu", "--max-running", "2", *engine)
    run("limits", "set", "slow", "--per-min", "0.5", "--burst", "3", *engine)
    shown = run("limits", "list", "--text", *engine).stdout
    assert [line.split()[0] for line in shown.splitlines()] == ["key", "gpu", "openai:tokens", "slow"]
    assert "2 at once" in shown
    assert "0.5 a minute, 3 at once" in shown
    (cleared,) = lines_of(run("limits", "clear", "gpu", "--json", *engine))
    assert cleared["policy"] is None


def test_a_queues_policy_is_set(engine: tuple[str, str]) -> None:
    """What is not named stays; 0 takes a limit away; the queue is made."""
    (told,) = lines_of(run("queues", "set", "gpu", "--max-running", "2", "--weight", "acme=3", "--json", *engine))
    assert told["policy"]["max_running"] == 2
    (told,) = lines_of(run("queues", "set", "gpu", "--max-depth", "9", "--max-running", "0", "--json", *engine))
    assert (told["policy"]["max_depth"], told["policy"]["max_running"]) == (9, None)


@pytest.mark.parametrize(
    "command",
    [
        ("limits", "set", "a b", "--max-running", "1"),
        ("limits", "set", "k", "--max-running", "0"),
        ("limits", "set", "k", "--burst", "3"),
        ("queues", "set", "gpu"),
        ("queues", "set", "gpu", "--weight", "acme"),
        ("queues", "set", "gpu", "--weight", "acme=much"),
        ("queues", "set", "gpu", "--weight", "acme=-1"),
        ("queues", "set", "g p u", "--max-running", "1"),
    ],
)
def test_what_cannot_be_is_refused(command: tuple[str, ...], store: tuple[str, str]) -> None:
    """In one line, with the exit code of a wrong request."""
    result = run(*command, *store)
    assert result.exit_code == Exit.usage, result.output
    assert result.stderr.startswith("ropeway: ")
    assert len(result.stderr.strip().splitlines()) <= 2

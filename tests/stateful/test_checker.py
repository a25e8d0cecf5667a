"""The judge is judged: linearizability, seeds kept and told, and the command that runs one again."""

from __future__ import annotations

from pathlib import Path

import pytest
from handover import HandoverHarness
from mutants_jobs import ResumeInclusive

from ropeway.testing.harness import MemoryHarness
from ropeway.testing.history import Violation, check, drive
from ropeway.testing.history.__main__ import main
from ropeway.testing.history.linearizability import NEVER, Timed, linearizable
from ropeway.testing.history.seeds import (
    assert_clean,
    keep_seed,
    kept_seeds,
    replay_line,
    seeds_of_sources,
    shortest,
    sources_digest,
)
from ropeway.testing.history.telling import short


def register(state: int, op: Timed) -> list[int]:
    """A register: `write` puts its detail there, `read` answers what is there."""
    if op.what == "write":
        return [op.detail]
    return [state] if op.answer == state else []


@pytest.mark.parametrize(
    ("story", "ops", "expected"),
    [
        ("a read after a write sees it", [Timed(0, 1, "write", 1), Timed(2, 3, "read", answer=1)], True),
        ("a read after a write cannot see what was", [Timed(0, 1, "write", 1), Timed(2, 3, "read", answer=0)], False),
        ("a read beside a write may see what was", [Timed(0, 3, "write", 1), Timed(1, 2, "read", answer=0)], True),
        ("a write of unknown outcome may count", [Timed(0, NEVER, "write", 1), Timed(5, 6, "read", answer=1)], True),
        ("or not", [Timed(0, NEVER, "write", 1), Timed(5, 6, "read", answer=0)], True),
        (
            "but not first count and then not",
            [Timed(0, NEVER, "write", 1), Timed(1, 2, "read", answer=1), Timed(3, 4, "read", answer=0)],
            False,
        ),
        ("and not before it began", [Timed(0, 1, "read", answer=1), Timed(2, NEVER, "write", 1)], False),
    ],
)
def test_linearizability(story: str, ops: list[Timed], expected: bool) -> None:
    """Calls are put into an order true to real time in which all answers are right, if there is one."""
    assert linearizable(ops, 0, register) is expected, story


async def test_a_failing_history_is_shortened_kept_and_told(tmp_path: Path) -> None:
    """A failure names what broke, keeps the shortest beginning of the seed, and tells the command to run it again."""
    harness = HandoverHarness(ResumeInclusive, "resume-inclusive")
    seed = 0
    while not check(await drive(seed, harness)):
        seed += 1
    with pytest.raises(AssertionError) as failure:
        await assert_clean(seed, harness, tmp_path)
    (kept,) = kept_seeds(tmp_path)
    assert (kept.engine, kept.seed, kept.broke) == ("resume-inclusive", seed, ("I5r",))
    assert check(await drive(seed, harness, kept.length))
    assert not check(await drive(seed, harness, kept.length - 1))
    command = f"stateful python -m ropeway.testing.history handover:HandoverHarness {seed} {kept.length}  # sources"
    assert f"{command} {sources_digest()}" in str(failure.value)
    assert "I5r at step" in str(failure.value)


async def test_a_clean_history_is_kept_nowhere(tmp_path: Path) -> None:
    """A seed that breaks nothing leaves no file, and its shortest failing beginning is all of it."""
    await assert_clean(1, MemoryHarness(), tmp_path)
    assert kept_seeds(tmp_path) == []
    assert (await shortest(1, MemoryHarness(), 3)).length == 3


async def test_a_kept_seed_is_readable(tmp_path: Path) -> None:
    """What is kept is JSON that a human can add a story to."""
    history = await drive(1, MemoryHarness(), 2)
    path = keep_seed(tmp_path, history, [Violation("I4", 1, "text"), Violation("A1", 2, "text")])
    assert path.name == "memory-1.json"
    assert '"broke": [\n    "A1",\n    "I4"\n  ]' in path.read_text()
    assert "MemoryHarness 1 2" in replay_line(history, MemoryHarness())


def test_fresh_seeds_belong_to_the_sources() -> None:
    """The same sources give the same seeds, more of them begin alike, and none is a fixed one."""
    assert seeds_of_sources(3) == seeds_of_sources(5)[:3]
    assert min(seeds_of_sources(50)) >= 1 << 32


def test_the_command_tells_a_history(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m ropeway.testing.history` prints every call, and exits 0 when nothing broke."""
    assert main(["ropeway.testing.harness:MemoryHarness", "5", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  0 @1700000000000 ok     announce(WorkerCard(session='s0'")


def test_the_command_fails_when_something_broke(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It exits 1 and names what broke at the end."""
    monkeypatch.setattr("ropeway.testing.history.__main__.check", lambda _history: [Violation("I4", 7, "text")])
    assert main(["ropeway.testing.harness:MemoryHarness", "5"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "I4 at step 7: text"


@pytest.mark.parametrize("arguments", [[], ["MemoryHarness", "1"], ["a:b", "1", "2", "3"]])
def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Wrong arguments are answered with how it is used, and exit status 2."""
    assert main(arguments) == 2
    assert "MODULE:HARNESS SEED" in capsys.readouterr().err


def test_short_text_leaves_defaults_out() -> None:
    """A struct is told by what differs from its defaults, through all levels."""
    history_text = short([Violation("I4", 1, "x"), None, ("a",), 1.5])
    assert history_text == "['I4'-1-'x', None, ['a'], 1.5]"

"""Seeds: which histories to run, how to tell one that failed, and how to keep it so that it runs for ever."""

from __future__ import annotations

import hashlib
import inspect
import os
import random
from collections.abc import Collection
from pathlib import Path

import msgspec

from ropeway.testing.harness import Harness
from ropeway.testing.history.checker import check
from ropeway.testing.history.driver import DEFAULT_STEPS, drive
from ropeway.testing.history.invariants import INVARIANTS
from ropeway.testing.history.record import History, Violation

__all__ = [
    "KeptSeed",
    "assert_clean",
    "keep_seed",
    "kept_seeds",
    "replay_line",
    "seeds_of_sources",
    "shortest",
    "sources_digest",
]


class KeptSeed(msgspec.Struct, frozen=True):
    """A seed that failed once. `broke` is what was broken then; `story` what was wrong, once somebody knows."""

    engine: str
    seed: int
    length: int
    broke: tuple[str, ...]
    story: str = ""


def sources_digest() -> str:
    """A digest of the package's sources: what a seed ran on."""
    home = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        digest.update(f"{path.relative_to(home)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def seeds_of_sources(count: int) -> list[int]:
    """Seeds that are new with every change of the sources, and the same for the same sources."""
    rng = random.Random(sources_digest())  # noqa: S311 (to be repeatable)
    return [rng.randrange(1 << 32, 1 << 48) for _ in range(count)]


def replay_line(history: History, harness: Harness) -> str:
    """The command that runs this history again, from the folder that this one ran in."""
    kind = type(harness)
    command = f"python -m ropeway.testing.history {kind.__module__}:{kind.__qualname__} {history.seed} {history.length}"
    if kind.__module__.partition(".")[0] != "ropeway":
        command = f"PYTHONPATH={os.path.relpath(Path(inspect.getfile(kind)).parent)} {command}"
    return f"{command}  # sources {sources_digest()}"


async def shortest(
    seed: int, harness: Harness, length: int, invariants: Collection[str] = tuple(INVARIANTS)
) -> History:
    """The shortest beginning of a history that fails; the whole of it when none does."""
    for steps in range(1, length):
        history = await drive(seed, harness, steps)
        if check(history, invariants):
            return history
    return await drive(seed, harness, length)


def keep_seed(folder: Path, history: History, violations: list[Violation]) -> Path:
    """Write a failing seed where the tests find it again."""
    broke = tuple(sorted({violation.invariant for violation in violations}))
    kept = KeptSeed(history.engine, history.seed, history.length, broke)
    path = folder / f"{history.engine}-{history.seed}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")
    return path


def kept_seeds(folder: Path) -> list[KeptSeed]:
    """All that failed once, by file name."""
    return [msgspec.json.decode(path.read_bytes(), type=KeptSeed) for path in sorted(folder.glob("*.json"))]


async def assert_clean(
    seed: int,
    harness: Harness,
    folder: Path,
    length: int = DEFAULT_STEPS,
    invariants: Collection[str] = tuple(INVARIANTS),
) -> None:
    """Run a history, which must break none of the invariants.

    Raises AssertionError with the replay line, having kept the seed.
    """
    if not check(await drive(seed, harness, length), invariants):
        return
    history = await shortest(seed, harness, length, invariants)
    violations = check(history, invariants)
    path = keep_seed(folder, history, violations)
    told = "\n  ".join(map(str, violations[:5]))
    raise AssertionError(
        f"seed {seed} on {harness.name}:\n  {told}\nkept in {path.name}\n{replay_line(history, harness)}"
    )

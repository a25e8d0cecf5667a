"""The suite can see: each seeded bug is caught, by the invariant that is there for it."""

from __future__ import annotations

import pytest
from handover import HandoverHarness
from mutants import MUTANTS, Mutant

from ropeway.testing.history import INVARIANTS, check, drive

LIMIT = 5000  # histories in which a bug must be caught


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
async def test_mutant_is_caught(mutant: Mutant) -> None:
    """The engine with this bug breaks the invariant that is there to catch it."""
    harness = HandoverHarness(mutant.engine, mutant.name)
    for seed in range(mutant.seed, mutant.seed + LIMIT):
        broken = {violation.invariant for violation in check(await drive(seed, harness))}
        if mutant.invariant in broken:
            print(f"{mutant.name}: {mutant.invariant} in history {seed + 1}, with {sorted(broken)}")
            return
    raise AssertionError(f"{mutant.name} survived {LIMIT} histories: {mutant.engine.__doc__}")


def test_every_invariant_has_a_mutant() -> None:
    """No invariant is there that nothing could break."""
    assert {mutant.invariant for mutant in MUTANTS} == set(INVARIANTS)


@pytest.mark.parametrize("name", INVARIANTS)
def test_every_invariant_tells_its_promise(name: str) -> None:
    """An invariant's docstring begins with its number and is the promise."""
    assert (INVARIANTS[name].__doc__ or "").startswith(f"{name}: ")

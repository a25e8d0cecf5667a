"""Processes that die between two scripts of one operation: what the first did stands, and the store is whole.

The harness itself sees to the latter: whatever store it lets go of must have no key without an owner, no job without a
place and no count that does not add up.
"""

from __future__ import annotations

import pytest
from test_histories import OF_ONE_LINE

from redis_harness import RedisHarness, SpreadHarness
from ropeway.testing.history import check
from ropeway.testing.history.driver import DEFAULT_STEPS, Driver
from ropeway.testing.history.invariants import INVARIANTS
from ropeway.testing.history.record import Op
from ropeway.testing.history.rules import RULES, WAKING_RULES

MORTAL = (
    "submit",
    "lease",
    "append",
    "commit",
    "cancel",
    "close",
    "rescue",
    "promote",
    "prune",
    "purge",
    "retry",
    "wake",
)
"""The rules whose calls take several scripts, now or on several partitions."""

SPREAD = {*OF_ONE_LINE, "I2"}
"""A key stays with the body that claimed it though its job was never made: see SpreadHarness."""


class Reaper(Driver):
    """Lets the engine die inside calls of every kind, after the first, second, third or fourth of their scripts."""

    def _swarm(self) -> dict[str, int]:
        return {**super()._swarm(), "die": 12}

    async def _die(self) -> None:
        assert isinstance(self._harness, RedisHarness)
        call = {**RULES, **WAKING_RULES}[self._rng.choice(MORTAL)](self.world)
        if call is None:
            return
        engine, point = self.engine, f"script_{self._rng.choice((1, 1, 2, 2, 3, 4))}"
        self.engine = await self._harness.die(engine, point, lambda: getattr(engine, call.method)(*call.args))
        await self._record((Op(call, "info"),), f"died after {point}")


@pytest.mark.parametrize(
    ("harness", "count", "spared"),
    [(RedisHarness(), 40, set()), (SpreadHarness(), 15, SPREAD)],
    ids=["valkey", "spread"],
)
async def test_a_death_between_two_scripts_breaks_nothing(harness: RedisHarness, count: int, spared: set[str]) -> None:
    """Whoever dies in the middle of whatever: no promise is broken, and the next worker ends every job."""
    for seed in range(count):
        driver = Reaper(seed, harness, DEFAULT_STEPS)
        await driver.start()
        try:
            await driver.run()
            await driver.heal()
            await driver.read_all()
        finally:
            await harness.stop(driver.engine)
        assert check(driver.history, [name for name in INVARIANTS if name not in spared]) == [], f"seed {seed}"

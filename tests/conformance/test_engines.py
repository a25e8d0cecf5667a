"""Every promise of the engine protocol, on every engine."""

from __future__ import annotations

import pytest

from harnesses import HARNESSES
from ropeway.testing.conformance import Check, checks_for, run
from ropeway.testing.harness import Harness


@pytest.mark.parametrize(
    ("harness", "check"),
    [
        pytest.param(harness, check, id=f"{harness.name}-{check.name}")
        for harness in HARNESSES
        for check in checks_for(harness)
    ],
)
async def test_promise(harness: Harness, check: Check) -> None:
    """The engine keeps this promise (see the check's docstring)."""
    await run(check, harness)

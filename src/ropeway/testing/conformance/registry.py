"""The promises, as functions. A check's docstring is the promise; it raises AssertionError when it is broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ropeway.testing.bench import Bench
from ropeway.testing.harness import DurableHarness, Harness

__all__ = ["CHECKS", "Check", "checks_for", "durable_promise", "promise", "run"]

CheckFunction = Callable[[Bench], Awaitable[None]]


class Check(NamedTuple):
    """One promise of the protocol. `durable`: only for engines whose store outlives them."""

    name: str
    promise: str
    function: CheckFunction
    durable: bool


CHECKS: dict[str, Check] = {}
"""Every check by name, in the order of the files; filled when `ropeway.testing.conformance` is imported."""


def promise(function: CheckFunction) -> CheckFunction:
    """Register a check."""
    return _register(function, durable=False)


def durable_promise(function: CheckFunction) -> CheckFunction:
    """Register a check of what survives the engine."""
    return _register(function, durable=True)


def checks_for(harness: Harness) -> list[Check]:
    """The checks that an engine of this kind must pass."""
    return [check for check in CHECKS.values() if not check.durable or isinstance(harness, DurableHarness)]


async def run(check: Check, harness: Harness) -> None:
    """Run one check on a fresh engine. Raises AssertionError, telling the promise, when it is broken."""
    bench = await Bench.start(harness, check.name)
    try:
        await check.function(bench)
    finally:
        await bench.stop()


def _register(function: CheckFunction, durable: bool) -> CheckFunction:
    name = function.__name__
    text = " ".join((function.__doc__ or "").split())
    if not text or name in CHECKS:
        raise ValueError(f"check {name} needs a docstring, and a name of its own")
    CHECKS[name] = Check(name, text, function, durable)
    return function

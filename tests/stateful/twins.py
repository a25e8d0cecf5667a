"""Two engines that are asked the same, on one clock; their answers are to be equal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from ropeway.domain.job import Job
from ropeway.domain.lease import Append, Assignment, Commit, Lease, Outcome, Renewal
from ropeway.engines.base import Engine, JobPage
from ropeway.testing.clock import ManualClock
from ropeway.testing.harness import DurableHarness, Harness, MemoryHarness
from ropeway.testing.random import seeded_random

__all__ = ["Pair", "Twins", "plain"]


class Pair(NamedTuple):
    """One lease as each engine granted it: tokens are random, and each engine draws its own."""

    ours: Lease
    theirs: Lease
    next_seq: int


class Twins:
    """The reference (ours) and the engine under test (theirs), driven from plain code."""

    def __init__(self, tested: DurableHarness) -> None:
        self.clock = ManualClock()
        self._loop = asyncio.new_event_loop()
        self._tested = tested
        self._harnesses: list[Harness] = [MemoryHarness(), tested]
        self._engines = [
            self._loop.run_until_complete(harness.start(self.clock, seeded_random(n)))
            for n, harness in enumerate(self._harnesses)
        ]

    def ask(self, method: str, *args: Any, form: Callable[[Any], Any] | None = None) -> Any:
        """The answer that both give, in its plain form or in another. Raises AssertionError when they differ."""
        ours, theirs = ((form or plain)(self._call(engine, method, args)) for engine in self._engines)
        assert theirs == ours, f"{method}{args}: {self._tested.name} {theirs!r}, memory {ours!r}"
        return ours

    def lease(self, request: Any) -> list[Pair]:
        """The leases that both grant: of the same jobs in the same order, alike but for their tokens."""
        ours, theirs = (self._call(engine, "lease", (request,)) for engine in self._engines)
        assert plain(theirs) == plain(ours), f"lease({request}): {self._tested.name} {theirs!r}, memory {ours!r}"
        return [Pair(one.lease, other.lease, one.next_seq) for one, other in zip(ours, theirs, strict=True)]

    def append(self, pair: Pair, seq: int, drafts: tuple[tuple[str, str], ...]) -> Any:
        """Append under this lease on both."""
        batches = [[Append(lease, seq, drafts)] for lease in (pair.ours, pair.theirs)]
        return self._ask_each("append", batches)[0]

    def commit(self, pairs: list[Pair], outcomes: list[Outcome]) -> Any:
        """Commit under these leases on both."""
        ours = [Commit(pair.ours, outcome) for pair, outcome in zip(pairs, outcomes, strict=True)]
        theirs = [Commit(pair.theirs, outcome) for pair, outcome in zip(pairs, outcomes, strict=True)]
        return self._ask_each("commit", [ours, theirs])

    def reopen(self) -> None:
        """Let the engine that persists die; the reference stays."""
        self._engines[1] = self._loop.run_until_complete(self._tested.crash(self._engines[1]))

    def stop(self) -> None:
        for harness, engine in zip(self._harnesses, self._engines, strict=True):
            self._loop.run_until_complete(harness.stop(engine))
        self._loop.close()

    def _ask_each(self, method: str, batches: list[Any]) -> Any:
        both = zip(self._engines, batches, strict=True)
        ours, theirs = (plain(self._call(engine, method, (batch,))) for engine, batch in both)
        assert theirs == ours, f"{method}{batches[0]}: {self._tested.name} {theirs!r}, memory {ours!r}"
        return ours

    def _call(self, engine: Engine, method: str, args: tuple[Any, ...]) -> Any:
        return self._loop.run_until_complete(getattr(engine, method)(*args))


def plain(answer: Any) -> Any:
    """An answer without what engines may differ in: tokens, page cursors, the words of an error, the order of a set."""
    if isinstance(answer, list | tuple):
        return [plain(item) for item in answer]
    if isinstance(answer, Exception):
        return type(answer).__name__, getattr(answer, "depth", None)
    if isinstance(answer, Job):
        token = None if answer.token is None else "a token"
        return msgspec.structs.replace(answer, token=token, sharers=None)  # engines name cancels for themselves
    if isinstance(answer, Assignment):
        return msgspec.structs.replace(answer, lease=Lease(answer.lease.job_id, answer.lease.epoch, "a token"))
    if isinstance(answer, JobPage):
        return plain(answer.jobs), answer.next_cursor is None
    if isinstance(answer, Renewal):
        return answer.alive, sorted(answer.cancelled)
    if isinstance(answer, msgspec.Struct) and "job" in answer.__struct_fields__:
        return [plain(getattr(answer, name)) for name in answer.__struct_fields__]
    return answer

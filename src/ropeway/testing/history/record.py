"""What a history is made of: calls as data, what came of them, and what the store looked like after each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ropeway.domain.event import Event
from ropeway.domain.job import Job
from ropeway.domain.queue import QueueStats
from ropeway.testing.history.telling import short

__all__ = ["TENANTS", "Call", "History", "Kind", "Look", "Op", "Step", "Violation"]

TENANTS = ("a", "b")

_OF_A_TENANT = frozenset({"cancel", "wake", "retry", "purge", "get"})
"""The methods whose first argument is a tenant, and whose second is the batch."""

Kind = Literal["ok", "info", "raised"]
"""As in Jepsen: `info` may or may not have happened. `raised`: an error that no engine may raise."""


class Call(NamedTuple):
    """A call of the engine protocol: its method and arguments."""

    method: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.method}({', '.join(map(short, self.args))})"


class Op(NamedTuple):
    """A call and what came of it: the answer when `ok`, the error's text when `raised`, else None."""

    call: Call
    kind: Kind
    answer: Any = None

    @property
    def is_ok(self) -> bool:
        return self.kind == "ok"

    @property
    def batch(self) -> list[tuple[Any, Any]]:
        """Each item of a batch with its answer; for methods whose last argument but a reason is the batch."""
        items = self.call.args[1] if self.call.method in _OF_A_TENANT else self.call.args[0]
        answers = self.answer if self.is_ok else [None] * len(items)
        return list(zip(items, answers, strict=True))


class Look(NamedTuple):
    """Every job of every tenant as `get` showed it, and the engine's time.

    `deliveries` are the jobs that tell of others' ends, by the job that each tells of.
    """

    at_ms: int
    jobs: dict[str, Job]
    deliveries: Mapping[str, Job] = MappingProxyType({})


class Step(NamedTuple):
    """One step: calls made at the same time, or time that passed, or a crash; and a look at the store after it.

    `event` is empty for calls, else `time`, `crash` (between calls), or the failpoint that the engine died at.
    """

    number: int
    at_ms: int
    ops: tuple[Op, ...]
    look: Look
    event: str = ""

    @property
    def only(self) -> Op | None:
        """The call, when it was made alone."""
        return self.ops[0] if len(self.ops) == 1 else None


@dataclass
class History:
    """A run of the driver, complete: the same seed on the same code gives an equal one.

    `logs` holds each job's whole log, read when it ended and at the end; `observations` every reading of any part of
    a log; `stats` the last counts, of all tenants (None) and of each.
    """

    engine: str
    seed: int
    length: int
    steps: list[Step] = field(default_factory=list)
    logs: dict[str, tuple[Event, ...]] = field(default_factory=dict)
    observations: list[tuple[str, tuple[Event, ...]]] = field(default_factory=list)
    stats: dict[str | None, list[QueueStats]] = field(default_factory=dict)

    @property
    def end(self) -> Look:
        return self.steps[-1].look

    def lines(self) -> Iterator[str]:
        """The history as text, a line a call."""
        for step in self.steps:
            if step.event:
                yield f"{step.number:3} @{step.at_ms} {step.event}"
            for op in step.ops:
                yield f"{step.number:3} @{step.at_ms} {op.kind:6} {op.call} -> {short(op.answer)}"


class Violation(NamedTuple):
    """A promise broken: which, at which step, and how."""

    invariant: str
    step: int
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} at step {self.step}: {self.text}"

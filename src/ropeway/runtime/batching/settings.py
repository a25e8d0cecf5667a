"""What a user says of batches: how they are formed, and what a step of a streaming one holds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from typing import Final, TypeAlias, TypeVar

import msgspec

__all__ = ["DONE", "NOTHING", "Batch", "Signal", "Step"]

T = TypeVar("T")


class Batch(msgspec.Struct, frozen=True):
    """How jobs of a task share calls: `@app.task(batch=Batch(max_size=64, max_wait=0.005))`.

    Attributes:
        max_size: jobs in one call at most.
        max_wait: seconds that a job waits for others at most while a call could begin. A batch goes earlier when it is
            full, and when nothing else can come.
        max_cost: of one call, the sum of its jobs' costs; a job that costs more by itself goes alone.
        key: jobs share a call only when this is equal: a parameter's name, or a function of a job's input.
        cost: of a job, a function of its input; the job's own `cost` when left out.
        split: a call that fails is made again for halves of its jobs, to find the one it fails for. False for code
            that must not be repeated: all of its jobs fail then.

    Functions for `key` and `cost` take the parameters that they name, or all of them in order.
    """

    max_size: int = 32
    max_wait: float = 0.005
    max_cost: float | None = None
    key: str | Callable[..., Hashable] | None = None
    cost: Callable[..., float] | None = None
    split: bool = True

    def __post_init__(self) -> None:
        if self.max_size < 1:
            raise ValueError(f"a batch's max_size must be at least 1, not {self.max_size!r}")
        if not 0 <= self.max_wait < float("inf"):
            raise ValueError(f"a batch's max_wait must be seconds from 0 on, not {self.max_wait!r}")
        if self.max_cost is not None and not 0 < self.max_cost < float("inf"):
            raise ValueError(f"a batch's max_cost must be above 0, not {self.max_cost!r}")
        if self.cost is not None and self.max_cost is None:
            raise ValueError("a batch's cost says nothing without a max_cost")


class Signal(Enum):
    """What stands in a job's place in a step that has no item for it."""

    NOTHING = "nothing"
    DONE = "done"

    def __repr__(self) -> str:
        return self.name


NOTHING: Final = Signal.NOTHING
"""This job gets nothing in this step. (None is an item like any other.)"""

DONE: Final = Signal.DONE
"""This job has all its output: it ends now, whatever the others still get."""

Step: TypeAlias = Sequence[T | Signal | Exception]
"""What a streaming batch task yields: for each job of the call, in order, its next item, NOTHING, DONE or an error."""

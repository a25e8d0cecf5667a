"""What a transaction changes of its queues' counts and virtual times: summed up in memory, written once."""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from ropeway.domain.lifecycle import State
from ropeway.domain.rank import BAND_WIDTH, Priority, start_of
from ropeway.engines.sqlite.schema import CODES, STATE_COLUMNS
from ropeway.engines.sqlite.statements import Statements

__all__ = ["Ledger"]

_ALL = ""  # the owner under which a queue's own counts stand

_COUNT = f"""
INSERT INTO counts(queue, tenant, {", ".join(STATE_COLUMNS)})
SELECT value->>0, value->>1, {", ".join(f"value->>{place}" for place in range(2, 2 + len(STATE_COLUMNS)))}
FROM jsonb_each(?1) WHERE true
ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in STATE_COLUMNS)}
"""

_ADVANCE = """
INSERT INTO bands(queue, band, virtual_time)
SELECT value->>0, value->>1, value->>2 FROM jsonb_each(?1) WHERE true
ON CONFLICT DO UPDATE SET virtual_time = max(virtual_time, excluded.virtual_time)
"""


class Ledger:
    """Steps of counts by queue and tenant, and the furthest start tag leased by queue and band."""

    __slots__ = ("_reached", "_statements", "_steps")

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._steps: dict[tuple[str, str], list[int]] = {}
        self._reached: dict[tuple[str, Priority], float] = {}

    def count(self, queue: str, tenant: str, old: State | None, new: State, jobs: int = 1) -> None:
        """Jobs went from one state to another; they came from outside when `old` is None."""
        for owner in (tenant, _ALL):
            steps = self._steps.get((queue, owner))
            if steps is None:
                steps = self._steps[queue, owner] = [0] * len(CODES)
            if old is not None:
                steps[CODES[old]] -= jobs
            steps[CODES[new]] += jobs

    def advance(self, queue: str, rank: float) -> None:
        """A job of this rank left the head of the line: virtual time moves to its start tag."""
        band = Priority(Priority.high - int(rank // BAND_WIDTH))
        self._reached[queue, band] = max(self._reached.get((queue, band), 0.0), start_of(rank))

    def flush(self) -> None:
        """Write what was noted, before anything reads it and at the end."""
        if self._steps:
            self._statements.run_packed(_COUNT, [(*owner, *steps) for owner, steps in self._steps.items()])
            self._steps = {}
        if self._reached:
            self._statements.run_packed(_ADVANCE, [(*band, tag) for band, tag in self._reached.items()])
            self._reached = {}

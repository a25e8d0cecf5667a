"""What a transaction changes of its queues' counts, virtual times and turns: summed up in memory, written once."""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ropeway.domain.lifecycle import State
from ropeway.domain.rank import Priority, band_of, start_of
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
INSERT INTO bands(queue, band, virtual_time, passed)
SELECT value->>0, value->>1, value->>2, value->>3 FROM jsonb_each(?1) WHERE true
ON CONFLICT DO UPDATE SET virtual_time = max(virtual_time, excluded.virtual_time), passed = excluded.passed
"""


class Ledger:
    """Steps of counts by queue and tenant; by queue and band the furthest start tag leased, and how often a band was
    passed over."""

    __slots__ = ("_passed", "_reached", "_statements", "_steps")

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._steps: dict[tuple[str, str], list[int]] = {}
        self._reached: dict[tuple[str, Priority], float] = {}
        self._passed: dict[str, Mapping[Priority, int]] = {}

    def count(self, queue: str, tenant: str, old: State | None, new: State, jobs: int = 1) -> None:
        """Jobs went from one state to another; they came from outside when `old` is None."""
        for owner in (tenant, _ALL):
            steps = self._steps.get((queue, owner))
            if steps is None:
                steps = self._steps[queue, owner] = [0] * len(CODES)
            if old is not None:
                steps[CODES[old]] -= jobs
            steps[CODES[new]] += jobs

    def unwritten(self, queue: str, state: State) -> int:
        """How many jobs more of a queue are in this state than its row tells yet."""
        steps = self._steps.get((queue, _ALL))
        return 0 if steps is None else steps[CODES[state]]

    def advance(self, queue: str, rank: float) -> None:
        """A job of this rank left the head of the line: virtual time moves to its start tag."""
        band = band_of(rank)
        self._reached[queue, band] = max(self._reached.get((queue, band), 0.0), start_of(rank))

    def passed(self, queue: str, told: Sequence[tuple[Priority, int]]) -> Mapping[Priority, int]:
        """How often a queue's bands were passed over, of which its rows tell this."""
        noted = self._passed.get(queue)
        return dict(told) if noted is None else noted

    def pass_over(self, queue: str, before: Mapping[Priority, int], after: Mapping[Priority, int]) -> None:
        """So often they are after some leases."""
        self._passed[queue] = after
        for band in before.keys() | after.keys():
            self._reached.setdefault((queue, band), 0.0)

    def flush(self) -> None:
        """Write what was noted, before anything reads it and at the end."""
        if self._steps:
            self._statements.run_packed(_COUNT, [(*owner, *steps) for owner, steps in self._steps.items()])
            self._steps = {}
        if self._reached:
            passed = {(queue, band): count for queue, counts in self._passed.items() for band, count in counts.items()}
            rows = [(*band, tag, passed.get(band, 0)) for band, tag in self._reached.items()]
            self._statements.run_packed(_ADVANCE, rows)
            self._reached, self._passed = {}, {}

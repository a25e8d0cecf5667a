"""A table: what a case measures and shows, and what came of it."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject

__all__ = ["Case", "Column", "Outcome", "Ratio", "Row", "Sample", "ratio_of"]

Sample: TypeAlias = dict[str, float]
"""One measurement: the value of each column."""


@dataclass(frozen=True)
class Column:
    """A figure that a case measures, with its unit in the label; `digits` after the point."""

    key: str
    label: str
    digits: int = 0


@dataclass(frozen=True)
class Ratio:
    """A row's figure against the best of a group or of the rows named (with `|` between), in the same run.

    Above 1 is better than what it is compared with: `better` says which way a figure is good.
    """

    column: str
    label: str
    better: Literal["more", "less"] = "more"
    against: str = "peer"


@dataclass(frozen=True)
class Case:
    """One table.

    Attributes:
        about: what is done and how it is counted, for the reader of the table.
        target: what the design asks for.
        deadline_s: one measurement may take this long.
        long: only with `--long`.
    """

    name: str
    title: str
    about: str
    target: str
    columns: tuple[Column, ...]
    subjects: Callable[[Settings], Sequence[Subject]]
    measure: Callable[[Run], Awaitable[Sample]]
    ratios: tuple[Ratio, ...] = ()
    deadline_s: float = 90.0
    long: bool = False


class Row(msgspec.Struct):
    """A subject's measurements, one for each run; None where it failed, `faults` says why."""

    name: str
    group: str
    settings: str
    samples: list[dict[str, float] | None] = []
    faults: list[str] = []

    def values(self, key: str) -> list[float]:
        return [sample[key] for sample in self.samples if sample is not None and key in sample]


class Outcome(msgspec.Struct):
    """A table filled in; `command` made it, `facts` tell of the machine and the versions."""

    name: str
    command: str
    at: str
    runs: int
    quick: bool
    facts: dict[str, str]
    rows: list[Row]


def ratio_of(row: Row, rows: Sequence[Row], ratio: Ratio) -> float | None:
    """The median over the runs of this row's figure against the best of the group in the same run."""
    others = [other for other in rows if other is not row and _is_against(other, ratio)]
    found = []
    for run, sample in enumerate(row.samples):
        best = _best(others, run, ratio)
        if sample is None or best is None or not best or not sample.get(ratio.column):
            continue
        value = sample[ratio.column]
        found.append(value / best if ratio.better == "more" else best / value)
    return statistics.median(found) if found else None


def _is_against(other: Row, ratio: Ratio) -> bool:
    return not {other.group, other.name}.isdisjoint(ratio.against.split("|"))


def _best(others: Sequence[Row], run: int, ratio: Ratio) -> float | None:
    samples = [other.samples[run] for other in others if run < len(other.samples)]
    values = [sample[ratio.column] for sample in samples if sample is not None and ratio.column in sample]
    if not values:
        return None
    return max(values) if ratio.better == "more" else min(values)

"""Tables for people: on the terminal, and as Markdown in RESULTS.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.table import Case, Column, Outcome, Row, ratio_of

__all__ = ["markdown", "show"]

_STYLES = {"own": "bold", "peer": "", "bare": "dim"}


def show(console: Console, case: Case, outcome: Outcome) -> None:
    """Print a table."""
    table = Table(title=escape(case.title), caption=escape(f"target: {case.target}"), title_justify="left")
    head, *rows = _cells(case, outcome)
    for name in head:
        table.add_column(escape(name), justify="left" if name in ("", "settings") else "right")
    for row, cells in zip(outcome.rows, rows, strict=True):
        table.add_row(*map(escape, cells), style=_STYLES[row.group])
    console.print(table)
    for row in outcome.rows:
        for fault in row.faults:
            console.print(f"[red]{escape(row.name)}[/]: {escape(_last_line(fault))}")


def markdown(pairs: Sequence[tuple[Case, Outcome]]) -> str:
    """The whole report. Figures are `median (min-max)` over the runs."""
    parts = [_HEAD]
    for case, outcome in pairs:
        parts.append(_section(case, outcome))
    return "\n".join(parts)


_HEAD = """# Results

Made by `python -m benchmarks`; each table names its own command. Figures are the median of the runs, with the least
and the most in brackets. A time alone says little on a shared machine: the CPU time of a job, as the operating system
counts it (user and system), and the ratios, taken run by run against the best peer of the same run, say more. A ratio
above 1 is better than what it is compared with. Peers run on a Redis-protocol server that keeps everything in memory,
and `ropeway redis` on the same, each on a fresh one; rows `everysec` and `always` are on a server that syncs an
append-only file, and Ropeway on sqlite syncs every submit and commit to the disk.
"""


def _section(case: Case, outcome: Outcome) -> str:
    head, *rows = _cells(case, outcome)
    lines = [f"## {case.title}", "", case.about, f"Target: {case.target}.", ""]
    lines += [_line(head), _line(["---" if name in ("", "settings") else "---:" for name in head]), *map(_line, rows)]
    lines += ["", *(f"- {row.name}: {_last_line(fault)}" for row in outcome.rows for fault in row.faults)]
    facts = "; ".join(f"{name}: {value}" for name, value in outcome.facts.items())
    lines += [
        f"`{outcome.command}`, {outcome.at}, {outcome.runs} runs{', quick' if outcome.quick else ''}. {facts}.",
        "",
    ]
    return "\n".join(lines)


def _last_line(fault: str) -> str:
    return fault.strip().rpartition("\n")[2]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(case: Case, outcome: Outcome) -> list[list[str]]:
    """The table as text: its head, then its rows. Columns that nobody filled are left out."""
    columns = [column for column in case.columns if any(row.values(column.key) for row in outcome.rows)]
    ratios = [ratio for ratio in case.ratios if any(ratio_of(row, outcome.rows, ratio) for row in outcome.rows)]
    head = ["", *(column.label for column in columns), *(ratio.label for ratio in ratios), "settings"]
    body = []
    for row in outcome.rows:
        figures = [_figure(row, column) for column in columns]
        compared = [_ratio(ratio_of(row, outcome.rows, ratio)) if row.group == "own" else "" for ratio in ratios]
        body.append([row.name, *figures, *compared, row.settings])
    return [head, *body]


def _figure(row: Row, column: Column) -> str:
    values = row.values(column.key)
    if not values:
        return "failed" if row.faults else ""
    text = f"{statistics.median(values):,.{column.digits}f}"
    low, high = f"{min(values):,.{column.digits}f}", f"{max(values):,.{column.digits}f}"
    return text if low == high else f"{text} ({low}-{high})"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"

"""One job as a person, or a program, reads it."""

from __future__ import annotations

import msgspec
from rich.table import Table

from ropeway.cli.output import out, state_text, write_line
from ropeway.client import JobBody

__all__ = ["show_job"]

_SHOWN = (
    "id",
    "task",
    "queue",
    "priority",
    "attempt",
    "worker",
    "retry_of",
    "parent",
    "after",
    "after_failure",
    "cancel_reason",
    "tags",
)


def show_job(job: JobBody, lines: bool) -> None:
    """Write all that is known of it."""
    if lines:
        write_line(job)
        return
    console = out()
    table = Table.grid(padding=(0, 2))
    for name in _SHOWN:
        value = getattr(job, name)
        if value:
            table.add_row(name, ", ".join(value) if isinstance(value, tuple) else str(value))
    table.add_row("state", state_text(job))
    for name in ("created_at", "run_at", "started_at", "finished_at", "expires_at"):
        if getattr(job, name):
            table.add_row(name.removesuffix("_at"), getattr(job, name))
    timings = {name: value for name, value in msgspec.structs.asdict(job.timings).items() if value is not None}
    if timings:
        table.add_row("seconds", ", ".join(f"{name} {value:g}" for name, value in timings.items()))
    console.print(table)
    for name in ("metadata", "progress", "input", "output", "usage", "error"):
        value = getattr(job, name)
        if value not in (None, {}):
            text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
            console.print(f"\n[bold]{name}[/bold]")
            console.print(text, style="red" if name == "error" else None, markup=False)

"""Two ways to speak: to a person on a terminal, and in JSON lines to a program on a pipe."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ropeway.client import JobBody

__all__ = [
    "STATE_STYLES",
    "ago",
    "err",
    "lines_wanted",
    "out",
    "state_text",
    "told_when_slow",
    "write_all",
    "write_line",
    "write_text",
]

T = TypeVar("T")

SLOW_S = 1.0  # a person who sees nothing for longer asks what it does

STATE_STYLES = {
    "scheduled": "cyan",
    "queued": "blue",
    "running": "yellow",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}


def out() -> Console:
    """Standard output for tables and text. Made anew each time: it asks where it goes now."""
    return Console(highlight=False, soft_wrap=True)


def err() -> Console:
    """Standard error: for what is not the answer itself."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


@asynccontextmanager
async def told_when_slow(what: str) -> AsyncIterator[None]:
    """Say so on standard error when what is done within takes longer than a moment."""
    timer = asyncio.get_running_loop().call_later(SLOW_S, lambda: err().print(f"{what} …", style="dim", markup=False))
    try:
        yield
    finally:
        timer.cancel()


def lines_wanted(json: bool | None) -> bool:
    """Whether to write JSON lines: as told, else when nobody is looking."""
    return not sys.stdout.isatty() if json is None else json


def write_line(value: Any) -> None:
    """A value as one line of JSON, out at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def write_all(rows: Sequence[T], lines: bool, table: Callable[[Sequence[T]], Table], none: str) -> None:
    """A list: a line of JSON for each, or a table for people; `none` is what they read when there is nothing."""
    if not lines:
        out().print(table(rows) if rows else none)
        return
    for row in rows:
        write_line(row)


def write_text(text: str) -> None:
    """Text just as it is, out at once: what a model says is not ours to style."""
    sys.stdout.write(text)
    sys.stdout.flush()


def state_text(job: JobBody) -> Text:
    """The job's state in its colour; one that is asked to stop says so."""
    stopping = job.cancel_requested_at is not None and not job.state.terminal
    return Text("stopping" if stopping else job.state.value, style=STATE_STYLES[job.state.value])


def ago(seconds: float) -> str:
    """An age as a person says it: 5s, 3m, 2h, 4d."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"

"""What is going on, while it goes on: a line that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["Live"]


class Live:
    """Tells which measurement of how many runs, and what it is at."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total)
        self._title = ""

    @contextmanager
    def shown(self) -> Iterator[Live]:
        """On the terminal until the end of the block."""
        with self._progress:
            yield self

    @contextmanager
    def measuring(self, title: str) -> Iterator[None]:
        """One measurement, counted when it ends."""
        self._title = title
        self.say("")
        begin = time.monotonic()
        try:
            yield
        finally:
            self._progress.advance(self._task)
            if not self._console.is_terminal:
                self._console.print(f"{title}: {time.monotonic() - begin:.1f} s", highlight=False, markup=False)

    def say(self, what: str) -> None:
        """What the measurement is at."""
        self._progress.update(self._task, description=f"[bold]{self._title}[/] {what}")

"""The command line: `python -m benchmarks`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from benchmarks.cases import CASES
from benchmarks.live import Live
from benchmarks.perform import measurements, perform
from benchmarks.report import markdown, show
from benchmarks.rivals import RIVALS
from benchmarks.settings import Settings
from benchmarks.store import server_binary
from benchmarks.subjects import ENGINES
from benchmarks.table import Case, Outcome

__all__: list[str] = []

_HOME = Path(__file__).parent
_KEPT = _HOME / "results"
_REPORT = _HOME / "RESULTS.md"
_NAMES = tuple(case.name for case in CASES)


def main(
    only: Annotated[str, typer.Option(help=f"Cases, with commas between: {', '.join(_NAMES)}.")] = "",
    peers: Annotated[str, typer.Option(help="Peers to run beside.")] = ",".join(RIVALS),
    engines: Annotated[str, typer.Option(help="Ropeway's engines.")] = ",".join(ENGINES),
    runs: Annotated[int, typer.Option(min=1, help="Measurements of each row; the table shows the median.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: does it work? Writes no report.")] = False,
    long: Annotated[bool, typer.Option("--long", help="Also the cases that take minutes each.")] = False,
    folder: Annotated[
        Path, typer.Option(help="Where stores live while measured.", show_default="benchmarks/.work")
    ] = _HOME / ".work",
) -> None:
    """Measure Ropeway beside its peers, and write benchmarks/RESULTS.md.

    Peers are installed into environments of their own under benchmarks/.venvs, at pinned versions, and run on a private
    server on the loopback. A table not measured this time stays in the report as it was.
    """
    console = Console(width=None if sys.stdout.isatty() else 200)
    cases = [case for case in CASES if (case.name in _chosen(only, _NAMES) if only else long or not case.long)]
    settings = Settings(runs, quick, long, _chosen(engines, ENGINES), _chosen(peers, tuple(RIVALS)), folder.resolve())
    try:
        asyncio.run(_run(cases, settings, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped; tables that were finished are kept")
        raise typer.Exit(130) from None


async def _run(cases: list[Case], settings: Settings, console: Console) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    binary = server_binary(console.print) if settings.peers or "redis" in settings.engines else None
    with Live(console, sum(measurements(case, settings) for case in cases)).shown() as live:
        for case in cases:
            outcome = await perform(case, settings, binary, command, live)
            show(console, case, outcome)
            if not settings.quick:
                _keep(outcome)
                _REPORT.write_text(markdown(_kept()))
    if not settings.quick:
        console.print(
            f"written to {_REPORT.relative_to(Path.cwd()) if _REPORT.is_relative_to(Path.cwd()) else _REPORT}"
        )


def _chosen(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(known)}")
    return names


def _keep(outcome: Outcome) -> None:
    _KEPT.mkdir(exist_ok=True)
    (_KEPT / f"{outcome.name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcome)))


def _kept() -> list[tuple[Case, Outcome]]:
    """Every table that was ever filled in here, in the cases' order."""
    files = [(case, _KEPT / f"{case.name}.json") for case in CASES]
    return [(case, msgspec.json.decode(file.read_bytes(), type=Outcome)) for case, file in files if file.exists()]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    typer.run(main)

"""`ropeway fsck`: whether what lies in the store is in order, and putting right what is not."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.status import Status
from rich.table import Table
from rich.text import Text

from ropeway.cli.engine import engine_file, require_store, with_engine
from ropeway.cli.exits import Exit
from ropeway.cli.options import Config, EngineUrl, JsonLines
from ropeway.cli.output import err, lines_wanted, out, write_line
from ropeway.cli.teaching import help_text
from ropeway.config import load_settings
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.finding import Finding
from ropeway.engines.base import Engine

__all__ = ["FSCK_HELP", "fsck"]

FSCK_HELP = help_text(
    "Look for what is wrong in the store: jobs out of their line or in two, entries of jobs that are gone, counts that "
    "are off. Safe while workers run. With --repair jobs go back where their rows say, what belongs to nothing goes, "
    "and counts are put right; no job is ever deleted. Exit code 1 when something is wrong and stays so.",
    "A SQLite file is looked at (pages, counts, what is left of deleted jobs) and never mended: restore a copy.",
    examples=("ropeway fsck --engine redis://valkey:6379", "ropeway fsck --engine redis://valkey:6379 --repair"),
)

SHOWN = 200  # rows of the table: a broken index tells of each of its jobs

Repair = Annotated[bool, typer.Option("--repair", help="Put right what can be, without deleting any job.")]


class Summary(msgspec.Struct, frozen=True):
    """The last line for programs."""

    faults: int
    repaired: int
    left: int


def fsck(repair: Repair = False, engine: EngineUrl = None, json: JsonLines = None, config: Config = None) -> None:
    url = load_settings({"engine": engine}, path=config).engine
    file = engine_file(url)
    if file is not None:
        findings = _inspect_file(url, file, repair)
    else:
        findings = with_engine(url, None, lambda opened: _look(opened, repair))
    repaired = sum(finding.repaired for finding in findings)
    summary = Summary(len(findings), repaired, len(findings) - repaired)
    if lines_wanted(json):
        for line in (*findings, summary):
            write_line(line)
    else:
        _show(findings, summary)
    if summary.left:
        raise typer.Exit(Exit.job_failed)


def _inspect_file(url: str, file: Path, repair: bool) -> list[Finding]:
    from ropeway.engines.sqlite.fsck import inspect  # an engine is loaded when it is asked for

    require_store(url)
    if repair:
        raise InvalidRequest(
            "--repair is for Redis and Valkey: of a SQLite file its pages, counts and leftovers are looked at, and a "
            "broken one is restored from a copy"
        )
    return inspect(file)


async def _look(engine: Engine, repair: bool) -> list[Finding]:
    from ropeway.engines.redis import RedisEngine, fsck

    if not isinstance(engine, RedisEngine):
        raise InvalidRequest(f"there is nothing to look at in {engine.info.url}")
    look = fsck.repair if repair else fsck.inspect
    findings: list[Finding] = []
    for number, partition in enumerate(engine.partitions, 1):
        name = f"partition {number} of {len(engine.partitions)}" if len(engine.partitions) > 1 else "looking"
        findings += await _with_progress(name, partial(look, partition))
    return findings


async def _with_progress(name: str, look: Callable[[Callable[[int], None]], Awaitable[list[Finding]]]) -> list[Finding]:
    """Tell on a terminal how far it is; not in a pipe."""
    if not sys.stderr.isatty():
        return await look(lambda _looked: None)
    with Status(name, console=err()) as status:
        return await look(lambda looked: status.update(f"{name}: {looked:,} keys"))


def _show(findings: list[Finding], summary: Summary) -> None:
    if not findings:
        out().print("all is in order")
        return
    table = Table("", "fault", "where", "what", box=None)
    for finding in findings[:SHOWN]:
        mark, style = _mark(finding)
        table.add_row(Text(mark, style=style), finding.kind, Text(finding.key), Text(finding.what))
    console = out()
    console.print(table)
    if len(findings) > SHOWN:
        kinds = Counter(finding.kind for finding in findings)
        console.print(f"… {len(findings):,} in all: " + ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common()))
    console.print(f"{summary.faults:,} found, {summary.repaired:,} put right, {summary.left:,} left")


def _mark(finding: Finding) -> tuple[str, str]:
    if finding.repaired:
        return "mended", "green"
    return ("bad", "red") if not finding.repairable else ("can be mended", "yellow")

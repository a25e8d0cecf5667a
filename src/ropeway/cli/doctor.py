"""`ropeway doctor`: whether this machine is fit, and what to change if it is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ropeway.cli.checks import MEANINGS, Finding, folder_findings, limit_findings, python_findings
from ropeway.cli.engine import engine_file, shown, with_engine
from ropeway.cli.exits import Exit
from ropeway.cli.options import Config, EngineUrl, JsonLines
from ropeway.cli.output import lines_wanted, out, write_line
from ropeway.cli.teaching import help_text
from ropeway.config import load_settings
from ropeway.domain.errors import RopewayError
from ropeway.engines.base import Engine
from ropeway.runtime.sizing import advise_here

__all__ = ["DOCTOR_HELP", "doctor"]

DOCTOR_HELP = help_text(
    "Look at this machine and at the engine, and say what to change, and how many workers and threads it bears for "
    "jobs of --seconds each. Exit code 1 when something is bad.",
    examples=("ropeway doctor", "ropeway doctor --seconds 3.5 --engine sqlite:///var/lib/ropeway.db"),
)

_MARKS = {"ok": ("ok", "green"), "warn": ("look", "yellow"), "fail": ("bad", "red")}


Seconds = Annotated[float, typer.Option(min=0.001, help="What one of your jobs takes, for the sizing.")]


def doctor(engine: EngineUrl = None, seconds: Seconds = 1.0, json: JsonLines = None, config: Config = None) -> None:
    url = load_settings({"engine": engine}, path=config).engine
    findings = [*python_findings(), *limit_findings(), *_engine_findings(url), *_sizing_findings(seconds)]
    if lines_wanted(json):
        for finding in findings:
            write_line(finding)
    else:
        out().print(_table(findings))
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(Exit.job_failed)


def _engine_findings(url: str) -> Iterator[Finding]:
    file = engine_file(url)
    if file is not None:
        yield from folder_findings(file.parent)
        if not file.exists():
            yield Finding("engine", "ok", f"{url}: not made yet; `ropeway up` makes it")
            return

    async def look(opened: Engine) -> list[Finding]:
        waiting = sum(queue.waiting for queue in await opened.stats())
        workers = len(await opened.workers())
        info = opened.info
        name = f"{info.url}: {info.version}" if file is None else f"{url}: {info.kind} {info.version}"
        value = f"{name}, durability {info.durability}"
        return [
            Finding("engine", "ok", f"{value}, {waiting:,} jobs wait, workers known: {workers}"),
            Finding("a 202 means", "ok", MEANINGS[info.durability]),
            *(Finding("engine", "warn", warning) for warning in info.warnings),
        ]

    try:
        yield from with_engine(url, None, look)
    except RopewayError as error:
        yield Finding("engine", "fail", _shown(url), error.detail)


def _shown(url: str) -> str:
    """An engine's URL as it may be told: one that cannot be read may hold a password anywhere."""
    try:
        return url if engine_file(url) is not None else shown(url)
    except RopewayError:
        return "the engine's URL"


def _sizing_findings(seconds: float) -> Iterator[Finding]:
    """What this machine bears, for blocking jobs on threads and for async ones."""
    for kind, blocking in (("blocking", True), ("async", False)):
        name = f"{kind} jobs of {seconds:g} s"
        try:
            advice = advise_here(seconds, blocking)
        except ValueError as error:
            yield Finding(name, "warn", "none", str(error))
            continue
        room = (
            f"--threads {advice.threads_per_worker}" if blocking else f"--concurrency {advice.concurrency_per_worker}"
        )
        memory_mib = advice.estimated_memory_bytes >> 20
        value = f"{advice.concurrency:,} at once, about {advice.jobs_per_s:,.0f}/s, {memory_mib:,} MiB"
        yield Finding(name, "ok", value, f"--workers {advice.workers} {room}: {advice.reasons[0]}")


def _table(findings: list[Finding]) -> Table:
    table = Table("", "what", "found", "to do", box=None)
    for finding in findings:
        mark, style = _MARKS[finding.level]
        table.add_row(Text(mark, style=style), finding.name, finding.value, finding.advice)
    return table

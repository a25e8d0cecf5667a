"""`python -m examples.gateway.compare`: what a queue costs, measured in one run.

The same simulated provider is asked straight, through plain FastAPI, and through the gateway, direct and queued; each
server is a process of its own, one after the other. CPU is the server process's alone, from the operating system.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any, NamedTuple

import typer

from examples.gateway.load import Load, Seen, ask_many

__all__ = ["Row", "compare", "medians", "table"]


class Row(NamedTuple):
    """One way, measured. Milliseconds, but for CPU: microseconds; None where it is not ours to tell."""

    way: str
    failed: int
    words_per_s: float
    cpu_word_us: float | None
    cpu_request_us: float | None
    first_p50_ms: float
    first_p99_ms: float
    late_p50_ms: float
    late_p99_ms: float


def compare(load: Load, first_s: float, word_s: float, engines: list[str]) -> list[Row]:
    """Measure each way, warmed up by a tenth of the load."""
    rhythm = ("--words", str(load.words), "--first", str(first_s), "--word", str(word_s))
    with tempfile.TemporaryDirectory() as folder, _running("examples.gateway.upstream", "--port", "0", *rhythm) as up:
        upstream = up.url
        rows = [_measured("straight from the provider", upstream, "/chat/completions", load, None)]
        told = ("--upstream", upstream)
        with _running("examples.gateway.plain", *told) as plain:
            rows.append(_measured("plain FastAPI", plain.url, "/ai", load, plain.pid))
        for engine in engines:
            url = engine if engine != "sqlite:" else f"sqlite:///{folder}/compare.db"
            way = "direct" if engine == "memory:" else "queued"
            with _running("examples.gateway", "--engine", url, "--port", "0", *told) as server:
                rows.append(_measured(f"{way}, {engine.partition(':')[0]}", server.url, "/ai", load, server.pid))
    return rows


def medians(runs: list[list[Row]]) -> list[Row]:
    """Each way's rows of all runs as one: the median of each figure, and all that failed."""
    return [_median(rows) for rows in zip(*runs, strict=True)]


def _median(rows: tuple[Row, ...]) -> Row:
    figures = [[figure for figure in column if figure is not None] for column in list(zip(*rows, strict=True))[2:]]
    middle: list[Any] = [median(figure) if figure else None for figure in figures]
    return Row(rows[0].way, sum(row.failed for row in rows), *middle)


def table(rows: list[Row], load: Load) -> str:
    """The rows as a table; what each adds to a word's way is told against the provider's own."""
    base = rows[0]
    lines = [
        f"{load.requests} requests of {load.words} words, {load.concurrency} at once",
        "| | CPU us a word | CPU us a request | first word ms p50 / p99 | a word's way ms p50 / p99 | added | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cpu = "- | -" if row.cpu_word_us is None else f"{row.cpu_word_us:.0f} | {row.cpu_request_us:,.0f}"
        added = "-" if row is base else f"{row.late_p50_ms - base.late_p50_ms:.2f}"
        lines.append(
            f"| {row.way} | {cpu} | {row.first_p50_ms:.0f} / {row.first_p99_ms:.0f} | "
            f"{row.late_p50_ms:.2f} / {row.late_p99_ms:.2f} | {added} | {row.failed} |"
        )
    return "\n".join(lines)


class _Child(NamedTuple):
    url: str
    pid: int


@contextmanager
def _running(module: str, *flags: str) -> Iterator[_Child]:
    """A server in a process of its own, once it says where it is."""
    child = subprocess.Popen([sys.executable, "-m", module, *flags], stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert child.stdout is not None
        line = child.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{module} ended with exit code {child.wait()} before it served")
        yield _Child(json.loads(line)["url"] if line.startswith("{") else line, child.pid)
    finally:
        child.terminate()
        child.communicate()


def _measured(way: str, url: str, path: str, load: Load, pid: int | None) -> Row:
    asyncio.run(ask_many(url, path, load._replace(requests=max(load.requests // 10, 1))))
    before_s = _cpu_s(pid)
    seen = asyncio.run(ask_many(url, path, load))
    spent_s = None if before_s is None else (_cpu_s(pid) or 0.0) - before_s
    return _row(way, seen, spent_s)


def _row(way: str, seen: Seen, cpu_s: float | None) -> Row:
    words, requests = max(len(seen.late_s), 1), max(len(seen.first_s), 1)
    first, late = quantiles(seen.first_s, n=100), quantiles(seen.late_s, n=100)
    return Row(
        way,
        seen.failed,
        words / seen.wall_s,
        None if cpu_s is None else cpu_s / words * 1e6,
        None if cpu_s is None else cpu_s / requests * 1e6,
        first[49] * 1e3,
        first[98] * 1e3,
        late[49] * 1e3,
        late[98] * 1e3,
    )


def _cpu_s(pid: int | None) -> float | None:
    """User and system time of a process so far; None where the system does not tell."""
    stat = Path(f"/proc/{pid}/stat")
    if pid is None or not stat.exists():
        return None
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(
    requests: int = 60,
    concurrency: Annotated[int, typer.Option(help="At once.")] = 20,
    words: Annotated[int, typer.Option(help="Of an answer.")] = 50,
    first: Annotated[float, typer.Option(help="Seconds to the provider's first word.")] = 0.2,
    word: Annotated[float, typer.Option(help="Seconds between its words.")] = 0.05,
    runs: Annotated[int, typer.Option(min=1, help="Of everything; the table has the medians.")] = 3,
    engine: Annotated[list[str] | None, typer.Option(help="memory:, sqlite: or a URL; several times.")] = None,
) -> None:
    """Measure, and print a table."""
    load = Load(requests, concurrency, words)
    measured = [compare(load, first, word, engine or ["memory:", "sqlite:"]) for _ in range(runs)]
    typer.echo(f"{runs} runs, medians; a word every {word:g} s, the first after {first:g} s")
    typer.echo(table(medians(measured), load))
    typer.echo(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    typer.run(main)

"""`python -m examples.pipeline.load`: load the pipeline and report. Exit code 0 when everything accepted was done."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.pipeline.load.report import Percentiles, Report, Tally
from examples.pipeline.load.run import Plan, load

FACTS = "[dim]{task.fields[facts]}"


def main(
    url: Annotated[str, typer.Option(help="Where the pipeline is served.")] = "http://127.0.0.1:8001",
    requests: Annotated[int, typer.Option(min=1, help="Requests in all.")] = 1_000,
    concurrency: Annotated[int, typer.Option(min=1, max=5_000, help="Submits under way at once.")] = 64,
    batch: Annotated[int, typer.Option(min=1, max=1_000, help="Requests in one submit, as NDJSON above 1.")] = 1,
    together: Annotated[bool, typer.Option(help="Hold the line until all are submitted: all start at once.")] = False,
    text: Annotated[
        str, typer.Option(help="What each request processes; its number is added.")
    ] = "the quick brown fox",
    run_id: Annotated[str, typer.Option(help="Requests are called RUN_ID-N; the same again repeats the same.")] = "",
    stall: Annotated[float, typer.Option(min=1, help="Seconds without any progress after which to give up.")] = 60.0,
    allow_refused: Annotated[bool, typer.Option(help="A 503 for a full queue is no fault of this test.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Submit requests as fast as they are accepted, watch them go through, ask after every one, and report."""
    plan = Plan(url, requests, concurrency, run_id or f"load-{secrets.token_hex(4)}", batch, together, text, stall)
    with _progress(requests, quiet=json) as show:
        try:
            report = asyncio.run(load(plan, show))
        except (OSError, ValueError) as error:
            Console(stderr=True).print(f"[red]Cannot load {url}:[/] {error}\nIs it served? python -m examples.pipeline")
            raise typer.Exit(2) from error
    if json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _print(report, Console())
    raise typer.Exit(0 if report.good(allow_refused) else 1)


@contextmanager
def _progress(requests: int, quiet: bool) -> Iterator[Callable[[Tally], None]]:
    """Two bars on a terminal: requests accepted, and requests done."""
    columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn(FACTS), console=Console(stderr=True), disable=quiet) as progress:
        accepted = progress.add_task("accepted", total=requests, facts="")
        done = progress.add_task("done", total=requests, facts="")

        def show(tally: Tally) -> None:
            seen = tally.seen
            refused = f"{tally.refused:,} refused" if tally.refused else ""
            flight = f"{seen.running:,} in flight, {seen.waiting:,} queued" if seen else "no answer yet"
            progress.update(accepted, completed=len(tally.accepted_ids), facts=refused)
            progress.update(done, completed=min(tally.done, requests), facts=flight)

        yield show


def _print(report: Report, console: Console) -> None:
    table = Table(title=f"{report.requests:,} requests", show_header=False, title_justify="left")
    for name, value in _rows(report):
        table.add_row(name, value)
    console.print(table)
    for trouble, times in _counted(report.troubles):
        console.print(f"[red]{times} x[/] {trouble}", highlight=False)


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    yield "accepted / refused", f"{report.accepted:,} / {report.refused:,}"
    yield "done / failed / lost", f"{report.succeeded:,} / {report.failed:,} / {report.lost:,}"
    yield "peak in flight", f"{report.peak_in_flight:,}, {report.peak_queued:,} queued, {report.peak_threads:,} threads"
    yield "throughput", f"{report.throughput:,.0f} requests/s over {report.elapsed_s:.2f} s"
    yield "submitting", f"{report.submit_s:.2f} s; POST to 202: {_spread(report.accepting, 1000, 'ms')}"
    yield "created to done", _spread(report.latency, 1, "s")
    yield (
        "started to done",
        f"{_spread(report.processing, 1, 's')}; {report.added_s * 1000:.0f} ms beyond its longer step",
    )
    if report.tracking_cpu_s is not None and report.tracking_percent is not None:
        cost = f"{report.tracking_cpu_s * 1e6:,.0f} us of CPU a request"
        yield "tracking", f"{cost}, {report.tracking_percent:.3f} % of its processing time"
    if report.rss_bytes:
        yield "server's memory", f"{report.rss_bytes / 1024**2:,.0f} MiB in all processes"
    yield "by worker", ", ".join(f"{name}: {count:,}" for name, count in sorted(report.workers.items()))
    if report.repeated:
        yield "asked again", f"{report.repeated:,} times, when the server did not answer"


def _spread(spread: Percentiles | None, scale: float, unit: str) -> str:
    if spread is None:
        return "-"
    p50, p95, p99, most = (value * scale for value in (spread.p50, spread.p95, spread.p99, spread.most))
    return f"p50 {p50:.3g}, p95 {p95:.3g}, p99 {p99:.3g}, at most {most:.3g} {unit}"


def _counted(troubles: tuple[str, ...]) -> list[tuple[str, int]]:
    kinds: dict[str, int] = {}
    for trouble in troubles:
        kinds[trouble] = kinds.get(trouble, 0) + 1
    return sorted(kinds.items(), key=lambda kind: -kind[1])[:10]


if __name__ == "__main__":
    typer.run(main)

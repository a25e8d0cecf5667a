"""`ropeway queues`: what waits where, pausing it, and its policy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from ropeway.cli.options import JsonLines, Reach, reaching
from ropeway.cli.output import ago, lines_wanted, write_all
from ropeway.cli.teaching import help_text
from ropeway.client import Client
from ropeway.client.fleet import QueueBody
from ropeway.domain.errors import InvalidRequest

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="See what waits where; pause and resume it; set its policy.")

SET_HELP = help_text(
    "Change a queue's policy; what is not named stays.",
    examples=(
        "ropeway queues set gpu --max-running 2",
        "ropeway queues set chat --weight acme=3 --weight trial=0.5",
        "ropeway queues set chat --max-running 0      # no limit again",
    ),
)

Most = Annotated[int | None, typer.Option(metavar="N", help="At most so many; 0: no limit.")]
QueueNames = Annotated[list[str], typer.Argument(metavar="QUEUE...", help="Names of queues.")]


@app.command("list")
@reaching
def list_(
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """List the queues with their counts; `oldest` is how long the first in line has waited."""
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        _write(await client.queues(), lines)

    reach.run(work)


@app.command()
@reaching
def pause(
    names: QueueNames,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """Accept jobs and run none; what runs goes on."""
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        _write([await client.pause(name) for name in names], lines)

    reach.run(work)


@app.command()
@reaching
def resume(
    names: QueueNames,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """Run a paused queue's jobs again."""
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        _write([await client.resume(name) for name in names], lines)

    reach.run(work)


@app.command("set", help=SET_HELP)
@reaching
def set_(
    name: Annotated[str, typer.Argument(metavar="QUEUE", help="Name of a queue; it is made if it is not there.")],
    max_running: Most = None,
    max_depth: Annotated[int | None, typer.Option(metavar="N", help="Jobs that may wait.")] = None,
    max_depth_per_tenant: Most = None,
    weight: Annotated[
        list[str] | None, typer.Option(metavar="TENANT=N", help="Its share against the others'; all that are to hold.")
    ] = None,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    lines = lines_wanted(json)
    told = {"max_running": max_running, "max_depth_per_tenant": max_depth_per_tenant}
    changes: dict[str, Any] = {name: value or None for name, value in told.items() if value is not None}
    if max_depth is not None:
        changes["max_depth"] = max_depth
    if weight:
        changes["weights"] = dict(map(_weight, weight))
    if not changes:
        raise InvalidRequest("say what to set: --max-running, --max-depth, --max-depth-per-tenant or --weight")

    async def work(client: Client) -> None:
        _write([await client.set_queue(name, **changes)], lines)

    reach.run(work)


def _weight(text: str) -> tuple[str, float]:
    tenant, equals, number = text.partition("=")
    try:
        if equals:
            return tenant, float(number)
    except ValueError:
        pass
    raise InvalidRequest(f"--weight is TENANT=NUMBER, not {text[:80]!r}")


def _write(queues: list[QueueBody], lines: bool) -> None:
    write_all(queues, lines, _table, "no queues yet")


def _table(queues: Sequence[QueueBody]) -> Table:
    names = Column("queue", overflow="fold", min_width=8)  # it is there to be typed again
    table = Table(names, Column("state", no_wrap=True), box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("queued", "scheduled", "running", "succeeded", "failed", "cancelled", "oldest"):
        table.add_column(name, justify="right", no_wrap=True)
    for queue in queues:
        state = Text("paused", style="yellow") if queue.paused else Text("open", style="green")
        counts = (queue.queued, queue.scheduled, queue.running, queue.succeeded, queue.failed, queue.cancelled)
        table.add_row(queue.name, state, *(f"{count:,}" for count in counts), _oldest(queue))
    return table


def _oldest(queue: QueueBody) -> str:
    if queue.oldest_queued_at is None:
        return ""
    return ago(time.time() - datetime.fromisoformat(queue.oldest_queued_at).timestamp())

"""`ropeway queues`: what waits where, and pausing it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from ropeway.cli.options import ApiKey, Config, EngineUrl, GatewayUrl, JsonLines, with_client
from ropeway.cli.output import ago, lines_wanted, out, write_line
from ropeway.client import Client
from ropeway.client.fleet import QueueBody

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="See what waits where; pause and resume it.")

QueueNames = Annotated[list[str], typer.Argument(metavar="QUEUE...", help="Names of queues.")]


@app.command("list")
def list_(
    json: JsonLines = None,
    engine: EngineUrl = None,
    url: GatewayUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """List the queues with their counts; `oldest` is how long the first in line has waited."""
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        _write(await client.queues(), lines)

    with_client(engine, url, config, work, api_key)


@app.command()
def pause(
    names: QueueNames,
    json: JsonLines = None,
    engine: EngineUrl = None,
    url: GatewayUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Accept jobs and run none; what runs goes on."""
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        _write([await client.pause(name) for name in names], lines)

    with_client(engine, url, config, work, api_key)


@app.command()
def resume(
    names: QueueNames,
    json: JsonLines = None,
    engine: EngineUrl = None,
    url: GatewayUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Run a paused queue's jobs again."""
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        _write([await client.resume(name) for name in names], lines)

    with_client(engine, url, config, work, api_key)


def _write(queues: list[QueueBody], lines: bool) -> None:
    if lines:
        for queue in queues:
            write_line(queue)
        return
    names = Column("queue", overflow="fold", min_width=8)  # it is there to be typed again
    table = Table(names, Column("state", no_wrap=True), box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("queued", "scheduled", "running", "succeeded", "failed", "cancelled", "oldest"):
        table.add_column(name, justify="right", no_wrap=True)
    for queue in queues:
        state = Text("paused", style="yellow") if queue.paused else Text("open", style="green")
        counts = (queue.queued, queue.scheduled, queue.running, queue.succeeded, queue.failed, queue.cancelled)
        table.add_row(queue.name, state, *(f"{count:,}" for count in counts), _oldest(queue))
    out().print(table if queues else "no queues yet")


def _oldest(queue: QueueBody) -> str:
    if queue.oldest_queued_at is None:
        return ""
    return ago(time.time() - datetime.fromisoformat(queue.oldest_queued_at).timestamp())

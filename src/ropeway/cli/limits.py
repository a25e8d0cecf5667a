"""`ropeway limits`: what runs and waits under which limit, and setting what counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Column, Table

from ropeway.cli.options import JsonLines, Reach, reaching
from ropeway.cli.output import lines_wanted, write_all
from ropeway.cli.teaching import help_text
from ropeway.client import Client
from ropeway.client.limits import LimitBody, LimitRequest

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="See and set limits that all workers share.")

SET_HELP = help_text(
    "Have this count for a limit's key instead of what jobs bring: at once, for those that wait too.",
    "With no number there is no limit. `ropeway limits clear` has what jobs bring count again.",
    examples=(
        "ropeway limits set gpt-4o --max-running 20",
        "ropeway limits set openai:requests --per-min 500",
        "ropeway limits set openai:tokens --per-min 90000 --burst 30000",
    ),
)

Key = Annotated[str, typer.Argument(metavar="KEY", help="The limit's key, as `ropeway limits list` shows it.")]


@app.command("list")
@reaching
def list_(
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """List the limits under which jobs run or wait, or of which something is taken, set or paused."""
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        _write(await client.limits.find(), lines)

    reach.run(work)


@app.command("set", help=SET_HELP)
@reaching
def set_(
    key: Key,
    max_running: Annotated[int | None, typer.Option(metavar="N", help="Jobs of the key that run at once.")] = None,
    per_min: Annotated[float | None, typer.Option(metavar="N", help="Starts, or tokens, a minute.")] = None,
    burst: Annotated[float | None, typer.Option(metavar="N", help="At once. [default: a minute's worth]")] = None,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    lines = lines_wanted(json)
    per_s = None if per_min is None else per_min / 60
    held = burst if burst is not None or per_min is None else max(per_min, 1.0)

    async def work(client: Client) -> None:
        _write([await client.limits.set(key, max_running=max_running, per_s=per_s, burst=held)], lines)

    reach.run(work)


@app.command()
@reaching
def clear(
    key: Key,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """Have what jobs bring count again for a key."""
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        _write([await client.limits.clear(key)], lines)

    reach.run(work)


def _write(limits: list[LimitBody], lines: bool) -> None:
    write_all(limits, lines, _table, "no limits in use")


def _table(limits: Sequence[LimitBody]) -> Table:
    table = Table(Column("key", overflow="fold", min_width=8), box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("running", "waiting", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("paused until", no_wrap=True)
    table.add_column("set to")
    for limit in limits:
        left = "" if limit.left is None else f"{limit.left:,.0f}"
        paused, policy = limit.paused_until or "", "" if limit.policy is None else _words(limit.policy)
        table.add_row(limit.key, f"{limit.running:,}", f"{limit.parked:,}", left, paused, policy)
    return table


def _words(policy: LimitRequest) -> str:
    words = [] if policy.max_running is None else [f"{policy.max_running:,} at once"]
    if policy.per_s is not None:
        words.append(f"{policy.per_s * 60:,.6g} a minute, {policy.burst or 0:,.6g} at once")
    return "; ".join(words) or "no limit"

"""`ropeway keys`: who may do what at the gateways, and how much; on an engine, or through a gateway."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
import typer
from rich.table import Column, Table
from rich.text import Text

from ropeway.cli.options import JsonLines, Reach, reaching
from ropeway.cli.output import ago, err, lines_wanted, out, write_all, write_line, write_text
from ropeway.cli.teaching import help_text
from ropeway.client import Client
from ropeway.client.keys import KeyBody, KeyLimits, NewKeyBody
from ropeway.domain.caller import Scope
from ropeway.domain.errors import InvalidRequest

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys that gateways ask for.")

STATE_STYLES = {"live": "green", "expired": "yellow", "revoked": "red"}
DAY_S = 86_400

CREATE_HELP = help_text(
    "Make a key, and write it on stdout: here, and never again.",
    "From the first key on, every gateway on this engine asks for one, and may listen where others can reach it. Of a "
    "key only its SHA-256 is kept.",
    examples=(
        "ropeway keys create web                       # submit, read, cancel, files",
        "ropeway keys create ops --scopes admin,metrics,jobs:read",
        "ropeway keys create trial --tenant acme --days 30 --requests-per-min 60 --max-queued 100",
        "export ROPEWAY_KEY=$(ropeway keys create me)",
    ),
)
LIMIT_HELP = help_text(
    "Say what all keys of a tenant may take together; what is not named has no limit from then on.",
    examples=("ropeway keys limit acme --requests-per-min 600 --max-queued 1000",),
)

KeyIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of keys: their middle part.")]
Rate = Annotated[float | None, typer.Option(metavar="N", help="A burst of one minute's worth is let through.")]
Queued = Annotated[int | None, typer.Option(metavar="N", help="The tenant's jobs that may wait in one queue.")]
Tokens = Annotated[float | None, typer.Option(metavar="N", help="Tokens of its jobs; those above it wait.")]
Running = Annotated[int | None, typer.Option(metavar="N", help="Its jobs that run at once; the others wait.")]
Streams = Annotated[int | None, typer.Option(metavar="N", help="Open streams, sockets and waits at a gateway.")]
Body = Annotated[int | None, typer.Option(metavar="BYTES", help="Of one request.")]
Tasks = Annotated[str | None, typer.Option(metavar="A,B", help="The tasks that may be submitted. [default: all]")]
Highest = Annotated[str | None, typer.Option(metavar="NAME", help="low, normal or high.")]


@app.command(help=CREATE_HELP)
@reaching
def create(
    name: Annotated[str, typer.Argument(help="Who uses it, for people.")],
    tenant: Annotated[str | None, typer.Option(help="Whose jobs it sees. [default: default, or your own]")] = None,
    scopes: Annotated[str | None, typer.Option(metavar="A,B", help=f"Of {', '.join(Scope)}.")] = None,
    days: Annotated[float | None, typer.Option(metavar="N", help="Until it expires. [default: never]")] = None,
    requests_per_min: Rate = None,
    tokens_per_min: Tokens = None,
    max_queued: Queued = None,
    max_running: Running = None,
    max_streams: Streams = None,
    max_body_bytes: Body = None,
    tasks: Tasks = None,
    max_priority: Highest = None,
    json: JsonLines = False,
    *,
    reach: Reach,
) -> None:
    limits = _limits(
        tasks,
        requests_per_min=requests_per_min,
        tokens_per_min=tokens_per_min,
        max_queued=max_queued,
        max_running=max_running,
        max_streams=max_streams,
        max_body_bytes=max_body_bytes,
        max_priority=max_priority,
    )

    async def work(client: Client) -> NewKeyBody:
        ttl = None if days is None else days * DAY_S
        return await client.keys.create(name, tenant=tenant, scopes=_named(scopes), limits=limits, ttl=ttl)

    _tell(reach.run(work, makes_store=True), bool(json))


@app.command("list")
@reaching
def list_(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """List the keys, without what opens anything; those that were revoked or have expired too."""
    lines = lines_wanted(json)

    keys = reach.run(lambda client: client.keys.find(tenant))
    write_all(keys, lines, _table, "no keys: gateways ask for none")


@app.command()
@reaching
def revoke(
    ids: KeyIds,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """End keys: within a second they open nothing, and what is open with them is closed. There is no way back."""
    lines = lines_wanted(json)

    async def work(client: Client) -> list[KeyBody]:
        return [await client.keys.revoke(key_id) for key_id in ids]

    for key in reach.run(work):
        if lines:
            write_line(key)
        else:
            out().print(f"{key.id} ({key.name}) is revoked", markup=False)


@app.command()
@reaching
def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="A key's id: its middle part.")],
    overlap: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long the old one goes on.")] = 0.0,
    json: JsonLines = False,
    *,
    reach: Reach,
) -> None:
    """Make a new key like another, which goes on for --overlap seconds, so that its users can change over."""

    _tell(reach.run(lambda client: client.keys.rotate(key_id, overlap)), bool(json))


@app.command(help=LIMIT_HELP)
@reaching
def limit(
    tenant: Annotated[str, typer.Argument(help="The tenant's name.")],
    requests_per_min: Rate = None,
    tokens_per_min: Tokens = None,
    max_queued: Queued = None,
    max_running: Running = None,
    max_streams: Streams = None,
    max_body_bytes: Body = None,
    tasks: Tasks = None,
    max_priority: Highest = None,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    lines = lines_wanted(json)
    limits = _limits(
        tasks,
        requests_per_min=requests_per_min,
        tokens_per_min=tokens_per_min,
        max_queued=max_queued,
        max_running=max_running,
        max_streams=max_streams,
        max_body_bytes=max_body_bytes,
        max_priority=max_priority,
    )

    told = reach.run(lambda client: client.keys.set_limits(tenant, limits))
    if lines:
        write_line(told)
    else:
        out().print(f"{told.name}: {_limits_text(told.limits) or 'no limits'}", markup=False)


def _tell(made: NewKeyBody, lines: bool) -> None:
    """The key on stdout, alone, so that it can be caught in a variable; what to know of it on stderr."""
    if lines:
        write_line(made)
        return
    write_text(made.key + "\n")
    scopes = ", ".join(made.scopes)
    err().print(f"key {made.id} of tenant {made.tenant}: {scopes}. It is not shown again.", style="dim", markup=False)


def _limits(tasks: str | None, **numbers: float | str | None) -> KeyLimits:
    told = {**numbers, "tasks": _named(tasks)}
    try:
        return msgspec.convert({name: value for name, value in told.items() if value is not None}, KeyLimits)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error).replace("`$.", "`")) from error


def _named(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _table(keys: Sequence[KeyBody]) -> Table:
    id_ = Column("id", no_wrap=True)  # it is there to be typed again
    table = Table(id_, "name", "tenant", "state", "scopes", "limits", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("used", justify="right", no_wrap=True)
    for key in keys:
        state = Text(key.state, style=STATE_STYLES[key.state])
        table.add_row(
            key.id,
            key.name,
            key.tenant,
            state,
            " ".join(key.scopes),
            _limits_text(key.limits),
            _since(key.last_used_at),
        )
    return table


def _limits_text(limits: KeyLimits) -> str:
    return " ".join(f"{name}={_plain(value)}" for name, value in msgspec.to_builtins(limits).items())


def _plain(value: object) -> str:
    return (
        ",".join(value) if isinstance(value, list | tuple) else f"{value:g}" if isinstance(value, float) else f"{value}"
    )


def _since(at: str | None) -> str:
    return "" if at is None else ago(time.time() - datetime.fromisoformat(at).timestamp())

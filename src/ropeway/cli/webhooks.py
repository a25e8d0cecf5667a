"""`ropeway webhooks`: the secrets that deliveries are signed with, what became of those, and who asked for no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Column, Table

from ropeway.cli.engine import with_engine
from ropeway.cli.options import Config, EngineUrl, JsonLines, Reach, reaching
from ropeway.cli.output import lines_wanted, out, write_all, write_line
from ropeway.cli.teaching import help_text
from ropeway.client import Client
from ropeway.client.deliveries import AttemptBody, DeliveryBody
from ropeway.client.signing import SecretBody
from ropeway.domain.clock import SystemClock
from ropeway.domain.errors import InvalidRequest, JobNotFound
from ropeway.domain.instants import timestamp
from ropeway.domain.job import DEFAULT_TENANT, check_name
from ropeway.engines.base import Engine
from ropeway.operations.webhooks import Endpoints

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Sign webhooks, see what became of their deliveries, deliver again.")

SECRET_HELP = help_text(
    "Write the secret that a tenant's deliveries are signed with on stdout; one is made if there is none.",
    "Receivers verify the signature with it, by any library of Standard Webhooks.",
    examples=("ropeway webhooks secret", "ropeway webhooks secret --tenant acme"),
)
ROTATE_HELP = help_text(
    "Make a new secret, and write it on stdout.",
    "Deliveries are signed with the old one too until --overlap is over, so that receivers can change over.",
    examples=("ropeway webhooks rotate --tenant acme", "ropeway webhooks rotate --overlap 0   # it was found out"),
)
LOG_HELP = help_text(
    "Show the deliveries of a job's end: each attempt, what was answered, and when the next one is.",
    examples=("ropeway webhooks log job_0197…",),
)

Tenant = Annotated[str, typer.Option(help="Whose.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job that ended.")]


@app.command(help=SECRET_HELP)
@reaching
def secret(
    tenant: Tenant = DEFAULT_TENANT,
    json: JsonLines = False,
    *,
    reach: Reach,
) -> None:
    _tell(reach.run(lambda client: client.keys.webhook_secrets(tenant))[0], bool(json))


@app.command(help=ROTATE_HELP)
@reaching
def rotate(
    tenant: Tenant = DEFAULT_TENANT,
    overlap: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="The old one signs too.")] = 86_400,
    json: JsonLines = False,
    *,
    reach: Reach,
) -> None:
    _tell(reach.run(lambda client: client.keys.rotate_webhook_secret(tenant, overlap)), bool(json))


@app.command()
def silenced(
    tenant: Tenant = DEFAULT_TENANT, json: JsonLines = None, engine: EngineUrl = None, config: Config = None
) -> None:
    """List the endpoints that answered 410, and are not called any more."""
    check_name("tenant", tenant)
    lines = lines_wanted(json)
    found = with_engine(engine, config, lambda opened: _endpoints(opened).silenced(tenant))
    rows = [{"url": one.url, "since": timestamp(one.at_ms), "job_id": one.job_id} for one in found]
    write_all(rows, lines, _silenced_table, "no endpoint asked for no more")


@app.command()
def allow(
    url: Annotated[str, typer.Argument(help="As the jobs name it.")],
    tenant: Tenant = DEFAULT_TENANT,
    engine: EngineUrl = None,
    config: Config = None,
) -> None:
    """Call an endpoint again that had answered 410."""
    check_name("tenant", tenant)
    if not with_engine(engine, config, lambda opened: _endpoints(opened).allow(tenant, url)):
        raise InvalidRequest(f"{url} is not silenced: see `ropeway webhooks silenced`")
    out().print(f"{url} is called again; what failed meanwhile can be redelivered")


@app.command(help=LOG_HELP)
@reaching
def log(
    job_id: JobId,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    lines = lines_wanted(json)

    found = reach.run(lambda client: client.deliveries(job_id))
    for delivery in found if lines else ():
        write_line(delivery)
    if not lines:
        _show(found)


@app.command()
@reaching
def redeliver(
    job_id: JobId,
    delivery: Annotated[str | None, typer.Argument(help="Which of its deliveries. [default: the last]")] = None,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """Deliver a job's end once more, under the same webhook-id."""
    lines = lines_wanted(json)

    async def work(client: Client) -> DeliveryBody:
        known = [one.id for one in await client.deliveries(job_id)]
        if not known:
            raise JobNotFound(f"{job_id} has no delivery: it has not ended, or has no webhook for that end")
        return await client.redeliver(job_id, delivery or known[-1])

    made = reach.run(work)
    if lines:
        write_line(made)
    else:
        out().print(made.id)


def _endpoints(engine: Engine) -> Endpoints:
    return Endpoints(engine, SystemClock())


def _tell(secret: SecretBody, json: bool) -> None:
    if json:
        write_line(secret)
    else:
        _line(secret.secret)


def _silenced_table(rows: Sequence[dict[str, str]]) -> Table:
    table = Table(Column("endpoint", overflow="fold"), "since", "job", box=None, header_style="dim")
    for row in rows:
        table.add_row(*row.values())
    return table


def _show(found: list[DeliveryBody]) -> None:
    if not found:
        out().print("no delivery: the job has not ended, or has no webhook for that end")
    for delivery in found:
        again = f", again after {delivery.redelivery_of}" if delivery.redelivery_of else ""
        _line(f"{delivery.state:<9}  {delivery.id}  {delivery.type} to {delivery.url}{again}")
        for attempt in delivery.attempts:
            _line(f"  {attempt.attempt:>3}  {attempt.at}  {_outcome(attempt)}")


def _line(text: str) -> None:
    out().print(text, markup=False, highlight=False, soft_wrap=True)


def _outcome(attempt: AttemptBody) -> str:
    came = attempt.message or attempt.error or (f"answered {attempt.status}" if attempt.status else "under way")
    return f"{came}; next at {attempt.next_at}" if attempt.next_at else came

"""`ropeway jobs`: submit, list, show, follow and change jobs, on an engine or through a gateway."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Column, Table

from ropeway.cli.exits import Exit
from ropeway.cli.follow import follow_job
from ropeway.cli.options import ApiKey, Config, EngineUrl, GatewayUrl, JsonLines, with_client
from ropeway.cli.output import ago, lines_wanted, out, state_text, write_line
from ropeway.cli.teaching import help_text
from ropeway.client import Client, JobBody, JobHandle
from ropeway.client.submitter import OptionChanges
from ropeway.domain.errors import InvalidRequest, JobNotFound

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Submit, list, show, follow and change jobs.")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs.")]

SUBMIT_HELP = help_text(
    "Submit one job.",
    "On a terminal, --follow writes the output alone on stdout and all else on stderr; on a pipe it writes each event "
    "as a line of JSON. Exit code 1 tells that the job failed.",
    examples=(
        """ropeway jobs submit greet --input '{"name": "Ada"}'    # prints the job's id""",
        "ropeway jobs submit chat -i @messages.json --follow    # streams its output",
        """echo '{"name": "Ada"}' | ropeway jobs submit greet -i -""",
        "ropeway jobs submit report --priority low --delay 3600 --key report-2026-11",
    ),
)
TAIL_HELP = help_text(
    "Follow a job from its beginning, or from where you were, to its end.",
    examples=("ropeway jobs tail job_018f…", "ropeway jobs tail job_018f… --after 1764000000000-17"),
)
LIST_HELP = help_text(
    "List jobs, newest first.",
    examples=(
        "ropeway jobs list --state failed --task chat",
        "ropeway jobs list --limit 100000 --json | jq .error.code | sort | uniq -c",
    ),
)
SHOW_HELP = help_text(
    "Show a job: where it stands, its input, output, error and times.",
    examples=("ropeway jobs show job_018f… --wait 60      # 1: it failed; 6: it goes on",),
)


@app.command(help=SUBMIT_HELP)
def submit(
    task: Annotated[str, typer.Argument(help="The task's name, as a worker announced it.")],
    input_: Annotated[
        str, typer.Option("--input", "-i", metavar="JSON", help="JSON text; @FILE; or - for stdin.")
    ] = "{}",
    queue: Annotated[str | None, typer.Option(help="Another queue than the task's own.")] = None,
    priority: Annotated[str | None, typer.Option(help="low, normal or high.")] = None,
    delay: Annotated[float | None, typer.Option(metavar="SECONDS", help="Not before so long from now.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="How long an attempt may run.")] = None,
    queue_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long it may wait to start.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="To find it by; may be given again.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be given again.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: submitted again, it is the same job.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Whom to tell of its end.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stream its output until it ends.")] = False,
    json: JsonLines = None,
    engine: EngineUrl = None,
    url: GatewayUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    lines = lines_wanted(json)
    options = _options(
        queue=queue,
        priority=priority,
        delay=delay,
        timeout=timeout,
        queue_timeout=queue_timeout,
        tags=tag,
        metadata=_pairs(metadata),
        idempotency_key=key,
        webhook=webhook,
    )
    text = _input_text(input_)

    async def work(client: Client) -> Exit:
        job = await client.with_options(**options).submit_json(task, text)
        if follow:
            return await follow_job(client, job.id, None, lines)
        if lines:
            write_line(await job.get())
        else:
            out().print(job.id + ("  (submitted before, under this key)" if job.replayed else ""))
        return Exit.ok

    raise typer.Exit(with_client(engine, url, config, work, api_key))


@app.command(help=TAIL_HELP)
def tail(
    job_id: JobId,
    after: Annotated[str | None, typer.Option(metavar="EVENT", help="Go on after this event id.")] = None,
    json: JsonLines = None,
    engine: EngineUrl = None,
    url: GatewayUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    lines = lines_wanted(json)

    async def work(client: Client) -> Exit:
        return await follow_job(client, job_id, after, lines)

    raise typer.Exit(with_client(engine, url, config, work, api_key))


@app.command("list", help=LIST_HELP)
def list_(
    state: Annotated[list[str] | None, typer.Option(help="queued, running, failed, …; may be given again.")] = None,
    queue: Annotated[str | None, typer.Option()] = None,
    task: Annotated[str | None, typer.Option()] = None,
    tag: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    json: JsonLines = None,
    engine: EngineUrl = None,
    url: GatewayUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        table = Table(
            Column("job", no_wrap=True, min_width=36), box=None, pad_edge=False, padding=(0, 1)
        )  # an id is there to be copied
        table.add_column("state", no_wrap=True, min_width=9)
        table.add_column("run", no_wrap=True, min_width=3)
        table.add_column("age", no_wrap=True, min_width=3)
        for name in ("task", "queue", "tags"):
            table.add_column(name, overflow="fold")
        async for job in client.find(state=state or (), queue=queue, task=task, tag=tag, limit=limit):
            if lines:
                write_line(msgspec.structs.replace(job, input=msgspec.UNSET, output=msgspec.UNSET))  # not fetched
            else:
                tags = ", ".join(job.tags)
                table.add_row(job.id, state_text(job), str(job.attempt), _age(job), job.task, job.queue, tags)
        if not lines:
            out().print(table if table.row_count else "no such jobs")

    with_client(engine, url, config, work, api_key)


@app.command(help=SHOW_HELP)
def show(
    job_id: JobId,
    wait: Annotated[float | None, typer.Option(metavar="SECONDS", help="Wait so long for its end first.")] = None,
    json: JsonLines = None,
    engine: EngineUrl = None,
    url: GatewayUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        try:
            if wait is not None:
                await client.result(job_id, wait)
        finally:
            _show(await client.get(job_id), lines)

    with_client(engine, url, config, work, api_key)


@app.command()
def cancel(
    job_ids: JobIds,
    reason: Annotated[str | None, typer.Option(help="Kept with the job.")] = None,
    json: JsonLines = None,
    engine: EngineUrl = None,
    url: GatewayUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Cancel jobs: a waiting one at once, a running one as soon as its worker obeys."""
    lines = lines_wanted(json)

    async def one(client: Client, job_id: str) -> None:
        job = await client.cancel(job_id, reason)
        if lines:
            write_line(job)
        else:
            out().print(job.id, state_text(job))

    _each(job_ids, one, engine, url, config, api_key)


@app.command()
def retry(
    job_ids: JobIds,
    json: JsonLines = None,
    engine: EngineUrl = None,
    url: GatewayUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Run jobs that ended once more, as new jobs with the same input and options."""
    lines = lines_wanted(json)

    async def one(client: Client, job_id: str) -> None:
        job: JobHandle[Any] = await client.retry(job_id)
        if lines:
            write_line(await job.get())
        else:
            out().print(f"{job.id}  (again: {job_id})")

    _each(job_ids, one, engine, url, config, api_key)


@app.command()
def delete(
    job_ids: JobIds,
    force: Annotated[bool, typer.Option("--force", help="Cancel it first, if it has not ended.")] = False,
    engine: EngineUrl = None,
    url: GatewayUrl = None,
    api_key: ApiKey = None,
    config: Config = None,
) -> None:
    """Forget jobs that ended, with their events and results."""

    async def one(client: Client, job_id: str) -> None:
        await client.delete(job_id, force=force)

    _each(job_ids, one, engine, url, config, api_key)


def _each(
    job_ids: list[str],
    one: Callable[[Client, str], Coroutine[Any, Any, None]],
    engine: str | None,
    url: str | None,
    config: Path | None,
    api_key: str | None,
) -> None:
    async def work(client: Client) -> None:
        for job_id in job_ids:
            try:
                await one(client, job_id)
            except JobNotFound as error:  # of several, it must tell which
                raise JobNotFound(f"no job {job_id}") from error

    with_client(engine, url, config, work, api_key)


def _options(**told: Any) -> OptionChanges:
    """The options that were told."""
    return {name: value for name, value in told.items() if value is not None}  # type: ignore[return-value]


def _pairs(texts: list[str] | None) -> dict[str, str] | None:
    if not texts:
        return None
    for text in texts:
        if "=" not in text:
            raise InvalidRequest(f"--metadata takes KEY=VALUE, not {text!r}")
    return dict(text.split("=", 1) for text in texts)


def _input_text(told: str) -> bytes:
    """The input that `--input` names, known to be JSON before anything is connected."""
    if told == "-":
        text = sys.stdin.buffer.read()
    elif told.startswith("@"):
        try:
            text = Path(told[1:]).read_bytes()
        except OSError as error:
            raise InvalidRequest(f"--input {told}: {error.strerror}") from error
    else:
        text = told.encode()
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"--input is not JSON: {error}; strings need double quotes") from error
    return text


def _age(job: JobBody) -> str:
    return ago(time.time() - datetime.fromisoformat(job.created_at).timestamp())


def _show(job: JobBody, lines: bool) -> None:
    if lines:
        write_line(job)
        return
    console = out()
    table = Table.grid(padding=(0, 2))
    for name in ("id", "task", "queue", "priority", "attempt", "worker", "retry_of", "cancel_reason", "tags"):
        value = getattr(job, name)
        if value:
            table.add_row(name, ", ".join(value) if isinstance(value, tuple) else str(value))
    table.add_row("state", state_text(job))
    for name in ("created_at", "run_at", "started_at", "finished_at", "expires_at"):
        if getattr(job, name):
            table.add_row(name.removesuffix("_at"), getattr(job, name))
    timings = {name: value for name, value in msgspec.structs.asdict(job.timings).items() if value is not None}
    if timings:
        table.add_row("seconds", ", ".join(f"{name} {value:g}" for name, value in timings.items()))
    console.print(table)
    for name in ("metadata", "progress", "input", "output", "usage", "error"):
        value = getattr(job, name)
        if value not in (None, {}):
            text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
            console.print(f"\n[bold]{name}[/bold]")
            console.print(text, style="red" if name == "error" else None, markup=False)

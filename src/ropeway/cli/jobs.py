"""`ropeway jobs`: submit, list, show, follow and change jobs, on an engine or through a gateway."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Column, Table

from ropeway.cli.exits import Exit
from ropeway.cli.follow import follow_job
from ropeway.cli.inputs import input_text
from ropeway.cli.options import JsonLines, Reach, reaching
from ropeway.cli.output import ago, lines_wanted, out, state_text, write_line
from ropeway.cli.showing import show_job
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
        """ropeway jobs submit sum --after job_018f… -i '{"of": {"$output": "job_018f…"}}'""",
    ),
)
TAIL_HELP = help_text(
    "Follow a job from its beginning, or from where you were, to its end.",
    examples=("ropeway jobs tail job_018f…", "ropeway jobs tail job_018f… --after 1764000000000-17"),
)
SEND_HELP = help_text(
    "Send data to a job that has begun, which reads it by ctx.input(): an approval, the next words of a talk.",
    examples=(
        """ropeway jobs send job_018f… -i '"yes"'""",
        "ropeway jobs send job_018f… -i @turn.json --key turn-2",
    ),
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
@reaching
def submit(
    task: Annotated[str, typer.Argument(help="The task's name, as a worker announced it.")],
    input_: Annotated[
        str, typer.Option("--input", "-i", metavar="JSON", help="JSON text; @FILE; or - for stdin.")
    ] = "{}",
    queue: Annotated[str | None, typer.Option(help="Another queue than the task's own.")] = None,
    priority: Annotated[str | None, typer.Option(help="low, normal or high.")] = None,
    delay: Annotated[float | None, typer.Option(metavar="SECONDS", help="Not before so long from now.")] = None,
    run_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not before: 2026-12-24T18:00+01:00, or …T18:00[Europe/Berlin].")
    ] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="How long an attempt may run.")] = None,
    queue_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long it may wait to start.")
    ] = None,
    first_output_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long an attempt may take to its first output.")
    ] = None,
    output_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long it may be silent between two outputs.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="To find it by; may be given again.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be given again.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: submitted again, it is the same job.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Whom to tell of its end.")] = None,
    cache: Annotated[
        str | None, typer.Option(metavar="MODE", help="use an earlier result, refresh it, or off: a job of its own.")
    ] = None,
    after: Annotated[
        list[str] | None, typer.Option(metavar="JOB", help="Begin when this one has ended; may be given again.")
    ] = None,
    after_failure: Annotated[
        str | None, typer.Option(metavar="WHAT", help="When one of them does not succeed: fail (as is usual), or run.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stream its output until it ends.")] = False,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    lines = lines_wanted(json)
    options = _options(
        queue=queue,
        priority=priority,
        delay=delay,
        run_at=run_at,
        timeout=timeout,
        queue_timeout=queue_timeout,
        first_output_timeout=first_output_timeout,
        output_timeout=output_timeout,
        tags=tag,
        metadata=_pairs(metadata),
        idempotency_key=key,
        webhook=webhook,
        cache=None if cache is None else {"mode": cache},
        after=after,
        after_failure=after_failure,
    )
    text = input_text(input_)

    async def work(client: Client) -> Exit:
        job = await client.with_options(**options).submit_json(task, text)
        if follow:
            return await follow_job(client, job.id, None, lines)
        if lines:
            write_line(await job.get())
        else:
            known = "  (submitted before, under this key)" if job.replayed else ""
            out().print(job.id + ("  (the same was asked before)" if job.cached else known))
        return Exit.ok

    raise typer.Exit(reach.run(work))


@app.command(help=TAIL_HELP)
@reaching
def tail(
    job_id: JobId,
    after: Annotated[str | None, typer.Option(metavar="EVENT", help="Go on after this event id.")] = None,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    lines = lines_wanted(json)

    raise typer.Exit(reach.run(lambda client: follow_job(client, job_id, after, lines)))


@app.command("list", help=LIST_HELP)
@reaching
def list_(
    state: Annotated[list[str] | None, typer.Option(help="queued, running, failed, …; may be given again.")] = None,
    queue: Annotated[str | None, typer.Option()] = None,
    task: Annotated[str | None, typer.Option()] = None,
    tag: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    json: JsonLines = None,
    *,
    reach: Reach,
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

    reach.run(work)


@app.command(help=SHOW_HELP)
@reaching
def show(
    job_id: JobId,
    wait: Annotated[float | None, typer.Option(metavar="SECONDS", help="Wait so long for its end first.")] = None,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        try:
            if wait is not None:
                await client.result(job_id, wait)
        finally:
            show_job(await client.get(job_id), lines)

    reach.run(work)


@app.command(help=SEND_HELP)
@reaching
def send(
    job_id: JobId,
    input_: Annotated[str, typer.Option("--input", "-i", metavar="JSON", help="JSON text; @FILE; or - for stdin.")],
    key: Annotated[str | None, typer.Option(help="Idempotency key: sent again, the task gets it once.")] = None,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    lines = lines_wanted(json)
    data = msgspec.Raw(input_text(input_))

    async def work(client: Client) -> None:
        job = await client.send(job_id, data, key=key)
        if lines:
            write_line(job)
        else:
            out().print(f"{job.id} has it", markup=False)

    reach.run(work)


@app.command()
@reaching
def cancel(
    job_ids: JobIds,
    reason: Annotated[str | None, typer.Option(help="Kept with the job.")] = None,
    for_all: Annotated[bool, typer.Option("--for-all", help="Also for the others who share it.")] = False,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """Cancel jobs: a waiting one at once, a running one as soon as its worker obeys."""
    lines = lines_wanted(json)

    async def one(client: Client, job_id: str) -> None:
        job = await client.cancel(job_id, reason, for_all=for_all)
        goes_on = not job.state.terminal and job.cancel_requested_at is None
        if lines:
            write_line(job)
        else:
            out().print(job.id, state_text(job), *(["(goes on for others who share it)"] if goes_on else []))

    _each(job_ids, one, reach)


@app.command()
@reaching
def wake(job_ids: JobIds, json: JsonLines = None, *, reach: Reach) -> None:
    """Have waiting jobs go on now, whatever they wait for: a time, another job, an input."""
    lines = lines_wanted(json)

    async def one(client: Client, job_id: str) -> None:
        job = await client.wake(job_id)
        write_line(job) if lines else out().print(job.id, state_text(job))

    _each(job_ids, one, reach)


@app.command()
@reaching
def retry(
    job_ids: JobIds,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """Run jobs that ended once more, as new jobs with the same input and options."""
    lines = lines_wanted(json)

    async def one(client: Client, job_id: str) -> None:
        job: JobHandle[Any] = await client.retry(job_id)
        if lines:
            write_line(await job.get())
        else:
            out().print(f"{job.id}  (again: {job_id})")

    _each(job_ids, one, reach)


@app.command()
@reaching
def delete(
    job_ids: JobIds,
    force: Annotated[bool, typer.Option("--force", help="Cancel it first, if it has not ended.")] = False,
    *,
    reach: Reach,
) -> None:
    """Forget jobs that ended, with their events and results."""

    async def one(client: Client, job_id: str) -> None:
        await client.delete(job_id, force=force)

    _each(job_ids, one, reach)


def _each(
    job_ids: list[str],
    one: Callable[[Client, str], Coroutine[Any, Any, None]],
    reach: Reach,
) -> None:
    async def work(client: Client) -> None:
        for job_id in job_ids:
            try:
                await one(client, job_id)
            except JobNotFound as error:  # of several, it must tell which
                raise JobNotFound(f"no job {job_id}") from error

    reach.run(work)


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


def _age(job: JobBody) -> str:
    return ago(time.time() - datetime.fromisoformat(job.created_at).timestamp())

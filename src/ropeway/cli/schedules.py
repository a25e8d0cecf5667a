"""`ropeway schedules`: jobs that are submitted again and again; on an engine, or through a gateway."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import typer
from rich.table import Column, Table
from rich.text import Text

from ropeway.cli.inputs import input_text
from ropeway.cli.options import JsonLines, Reach, reaching
from ropeway.cli.output import ago, lines_wanted, out, write_all, write_line
from ropeway.cli.teaching import help_text
from ropeway.client import Call, Client
from ropeway.client.schedules import IncidentBody, ScheduleBody
from ropeway.client.submitter import OptionChanges

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Have jobs submitted again and again: by cron, or every so many seconds.")

STATE_STYLES = {"active": "green", "paused": "yellow", "ended": "dim", "undeclared": "red"}

SET_HELP = help_text(
    "Have a task submitted again and again; set again, the schedule is what is said then.",
    "A cron expression is read in --timezone. A time that its clocks leap over in spring comes right after the leap; "
    "one that comes twice in autumn is the first of both, unless minute or hour begins with `*`.",
    examples=(
        "ropeway schedules set report report --cron '30 6 * * 1-5' --timezone Europe/Berlin",
        """ropeway schedules set tidy tidy --every 3600 --overlap skip -i '{"days": 30}'""",
        "ropeway schedules set sale prices --cron @hourly --ends-at 2026-12-27T00:00",
    ),
)
SHOW_HELP = help_text(
    "Show a schedule: what it submits, its next times, and why the last one made no job if it did not.",
    "Its jobs have the tag schedule:NAME.",
    examples=("ropeway schedules show report", "ropeway jobs list --tag schedule:report"),
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of schedules.")]
Instant = Annotated[str | None, typer.Option(metavar="TIME", help="RFC 3339; without an offset, in --timezone.")]


@app.command("list")
@reaching
def list_(
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """List the schedules: when they fire next, and what became of their last time."""
    lines = lines_wanted(json)

    _write(reach.run(lambda client: client.schedules.find()), lines)


@app.command(help=SHOW_HELP)
@reaching
def show(
    name: Name,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    _show(reach.run(lambda client: client.schedules.get(name)), lines_wanted(json))


@app.command("set", help=SET_HELP)
@reaching
def set_(
    name: Name,
    task: Annotated[str, typer.Argument(help="The task's name, as a worker announced it.")],
    cron: Annotated[
        str | None, typer.Option(metavar="'M H D M W'", help="Minute, hour, day, month, weekday; or @daily, …")
    ] = None,
    every: Annotated[float | None, typer.Option(metavar="SECONDS", help="Instead of --cron.")] = None,
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="As Europe/Berlin.")] = "UTC",
    input_: Annotated[
        str, typer.Option("--input", "-i", metavar="JSON", help="JSON text; @FILE; or - for stdin.")
    ] = "{}",
    starts_at: Instant = None,
    ends_at: Instant = None,
    jitter: Annotated[float | None, typer.Option(metavar="SECONDS", help="Each time up to so much later.")] = None,
    catch_up: Annotated[
        str | None, typer.Option(metavar="POLICY", help="Of missed times: skip, latest or all. [default: latest]")
    ] = None,
    grace: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="So late a time was not missed. [default: 60]")
    ] = None,
    overlap: Annotated[
        str | None, typer.Option(metavar="POLICY", help="While the last job lives: allow or skip. [default: allow]")
    ] = None,
    paused: Annotated[bool | None, typer.Option("--paused/--active", help="[default: as it was]")] = None,
    queue: Annotated[str | None, typer.Option(help="Another queue than the task's own.")] = None,
    priority: Annotated[str | None, typer.Option(help="low, normal or high.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="How long an attempt may run.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="To find its jobs by; may be given again.")] = None,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    told = {
        "cron": cron,
        "interval": every,
        "timezone": timezone,
        "starts_at": starts_at,
        "ends_at": ends_at,
        "jitter": jitter,
        "catch_up": catch_up,
        "grace": grace,
        "overlap": overlap,
        "paused": paused,
    }
    options = {"queue": queue, "priority": priority, "timeout": timeout, "tags": tag}
    settings: Any = {key: value for key, value in told.items() if value is not None}
    said: OptionChanges = {key: value for key, value in options.items() if value is not None}  # type: ignore[assignment]
    text = input_text(input_)

    async def work(client: Client) -> ScheduleBody:
        return await client.schedules.set(name, Call(task, text), **settings, options=said)

    _show(reach.run(work), lines_wanted(json))


@app.command()
@reaching
def pause(
    names: Names,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """Have schedules fire no more."""
    lines = lines_wanted(json)

    async def work(client: Client) -> list[ScheduleBody]:
        return [await client.schedules.pause(name) for name in names]

    _write(reach.run(work), lines)


@app.command()
@reaching
def resume(
    names: Names,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """Have schedules fire again, from now on: what they were paused through is not caught up with."""
    lines = lines_wanted(json)

    async def work(client: Client) -> list[ScheduleBody]:
        return [await client.schedules.resume(name) for name in names]

    _write(reach.run(work), lines)


@app.command()
@reaching
def run(
    name: Name,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """Submit a schedule's job now, whatever its times are, and write the job's id."""
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        job = await client.schedules.run(name)
        if lines:
            write_line(await job.get())
        else:
            out().print(job.id)

    reach.run(work)


@app.command()
@reaching
def remove(
    names: Names,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """Forget schedules; their jobs stay. One that a worker's code declares is removed there."""
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        for name in names:
            await client.schedules.remove(name)
            if lines:
                write_line({"name": name, "removed": True})
            else:
                out().print(f"{name} is removed", markup=False)

    reach.run(work)


def _write(found: list[ScheduleBody], lines: bool) -> None:
    write_all(found, lines, _table, "no schedules yet")


def _table(found: Sequence[ScheduleBody]) -> Table:
    names = Column("schedule", overflow="fold", min_width=8)  # it is there to be typed again
    table = Table(names, Column("state", no_wrap=True), "when", "task", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("next", "last", "fired"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("trouble", overflow="fold")
    for one in found:
        state = Text(one.state, style=STATE_STYLES[one.state])
        trouble = Text("" if one.last_error is None else one.last_error.code, style="red")
        times = (_until(one.next_at), _since(one.last_at), f"{one.fired:,}")
        table.add_row(one.name, state, _when(one), one.job.task, *times, trouble)
    return table


def _show(one: ScheduleBody, lines: bool) -> None:
    if lines:
        write_line(one)
        return
    zone = ZoneInfo(one.timezone)
    table = Table.grid(padding=(0, 2))
    table.add_row("name", Text(one.name))
    table.add_row("state", Text(one.state, style=STATE_STYLES[one.state]))
    table.add_row("when", _when(one))
    table.add_row("task", one.job.task)
    table.add_row("policy", f"catch up: {one.catch_up} (grace {one.grace:g} s), overlap: {one.overlap}")
    for name in ("starts_at", "ends_at", "last_at"):
        if getattr(one, name):
            table.add_row(name.removesuffix("_at"), _in(zone, getattr(one, name)))
    table.add_row("fired", f"{one.fired:,}" + (f", last {one.last_job_id}" if one.last_job_id else ""))
    for label, incident in (("error", one.last_error), ("skipped", one.last_skip)):
        if incident is not None:
            table.add_row(label, Text(_incident(zone, incident), style="red" if label == "error" else ""))
    for n, at in enumerate(one.upcoming):
        table.add_row("" if n else "next", _in(zone, at))
    out().print(table)
    for name, value in (("input", one.job.input), ("options", _options(one))):
        if value:
            out().print(f"\n[bold]{name}[/bold]")
            out().print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), markup=False)


def _options(one: ScheduleBody) -> dict[str, Any]:
    told = {"queue": one.job.queue, "priority": one.job.priority, "delay": one.job.delay, **one.job.options}
    return {name: value for name, value in told.items() if value}


def _when(one: ScheduleBody) -> str:
    jitter = f" +{one.jitter:g} s" if one.jitter else ""
    if one.cron is None:
        return f"every {one.interval:g} s{jitter}"
    return f"{one.cron} {one.timezone}{jitter}"


def _incident(zone: ZoneInfo, incident: IncidentBody) -> str:
    return f"{_in(zone, incident.time)}: {incident.code}: {incident.message}"


def _in(zone: ZoneInfo, at: str) -> str:
    """An instant as clocks there show it."""
    return datetime.fromisoformat(at).astimezone(zone).isoformat(sep=" ", timespec="seconds")


def _until(at: str | None) -> str:
    if at is None:
        return ""
    left_s = (datetime.fromisoformat(at) - datetime.now(UTC)).total_seconds()
    return f"in {ago(left_s)}" if left_s >= 0 else f"{ago(-left_s)} late"


def _since(at: str | None) -> str:
    return "" if at is None else ago((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())

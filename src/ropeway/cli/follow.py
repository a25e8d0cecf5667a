"""Following one job on the command line: its output on stdout as it comes, everything else on stderr."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec
from rich.console import Console

from ropeway.cli.exits import Exit
from ropeway.cli.output import err, write_line, write_text
from ropeway.client import Client, EventBody
from ropeway.domain.errors import EngineUnavailable, JobNotFound, JobPurged
from ropeway.domain.event import (
    CANCELLED,
    FAILED,
    LOG,
    OUTPUT_DELTA,
    OUTPUT_RESET,
    PROGRESS,
    QUEUED,
    RETRYING,
    STARTED,
    STEP_COMPLETED,
    SUCCEEDED,
    TERMINAL_TYPES,
)

__all__ = ["Follower", "follow_job"]

RETRY_S = 1.0
TRIES = 100  # without one event between them; with the 2 s that a call itself waits, five minutes


async def follow_job(client: Client, job_id: str, after: str | None, lines: bool) -> Exit:
    """Write the job's events as they come; the exit code that its end deserves.

    An engine that is gone for a while is waited for, and the log goes on where it was. Left by Ctrl-C, the job goes on,
    and stderr says how to come back to the same place.
    """
    follower = Follower(lines, after)
    try:
        await _follow(client, job_id, follower)
    except (JobNotFound, JobPurged):
        raise
    except BaseException:
        if not follower.ended:
            resume = f" --after {follower.last_id}" if follower.last_id else ""
            err().print(f"\nthe job goes on; come back with: ropeway jobs tail {job_id}{resume}", style="dim")
        raise
    return Exit.ok if follower.succeeded in (True, None) else Exit.job_failed


async def _follow(client: Client, job_id: str, follower: Follower) -> None:
    """Show all events from where the follower is. Raises EngineUnavailable when the engine does not come back."""
    failures = 0
    while True:
        try:
            async for event in client.events(job_id, follower.last_id):
                follower.show(event)
                failures = 0
            return
        except EngineUnavailable as error:
            failures += 1
            if failures >= TRIES:
                raise
            if failures == 1:
                err().print(f"{error.detail}; waiting for it", style="yellow", markup=False)
        await asyncio.sleep(RETRY_S)


class Follower:
    """Writes events: as JSON lines, or as a person reads them."""

    def __init__(self, lines: bool, after: str | None = None) -> None:
        self.last_id = after
        self.ended = False
        self.succeeded: bool | None = None  # None: nothing was left to read
        self._lines = lines
        self._wrote_output = False
        self._at_line_start = True
        self._aside: Console = err()
        self._both_seen = sys.stdout.isatty() and self._aside.is_terminal

    def show(self, event: EventBody) -> None:
        """Write one event."""
        self.last_id = event.id
        if event.type in TERMINAL_TYPES:
            self.ended, self.succeeded = True, event.type == SUCCEEDED
        if self._lines:
            write_line(event)
        else:
            self._show(event, event.data if isinstance(event.data, dict) else {})

    def _show(self, event: EventBody, data: dict[str, Any]) -> None:
        if event.type == OUTPUT_DELTA:
            self._write(_delta_text(data.get("delta")))
        elif event.type == SUCCEEDED:
            self._finish(data)
        else:
            note = _note(event.type, data)
            if note:
                self._note(*note)

    def _write(self, text: str) -> None:
        write_text(text)
        self._wrote_output = True
        self._at_line_start = text.endswith("\n")

    def _end_line(self) -> None:
        if not self._at_line_start:
            write_text("\n")
            self._at_line_start = True

    def _finish(self, data: dict[str, Any]) -> None:
        """What was streamed stands already; what was not is written whole."""
        if not self._wrote_output:
            self._write(_whole_text(data.get("output")))
        self._end_line()
        run_s = (data.get("timings") or {}).get("run")
        self._note("succeeded" + (f" in {run_s:g} s" if run_s is not None else ""), "green")

    def _note(self, text: str, style: str) -> None:
        """Beside the output, never in it: only a terminal, where both are seen together, gets a line's end for it."""
        if self._both_seen:
            self._end_line()
        self._aside.print(text, style=style, markup=False)


def _note(type_: str, data: dict[str, Any]) -> tuple[str, str] | None:
    """What to say beside the output about an event, and in which style."""
    if type_ == QUEUED:
        return "queued", "dim"
    if type_ == STARTED:
        return f"started (attempt {data.get('attempt', '?')}) on {data.get('worker', '?')}", "dim"
    if type_ == PROGRESS:
        return _progress_text(data), "cyan"
    if type_ == LOG:
        return f"{data.get('level', 'info')}: {data.get('message', '')}", "dim"
    if type_ == OUTPUT_RESET:
        return "a new attempt begins; what came before is void", "yellow"
    if type_ == STEP_COMPLETED:
        return f"step '{data.get('name', '?')}' is done, in {data.get('seconds', 0):g} s", "dim"
    if type_ == RETRYING:
        return f"attempt {data.get('attempt', '?')} ended: {data.get('reason', '?')}{_why_text(data)}", "yellow"
    if type_ == FAILED:
        return f"failed{_why_text(data)}", "red"
    if type_ == CANCELLED:
        reason = data.get("cancel_reason") or data.get("reason")
        return "cancelled" + (f": {reason}" if reason else ""), "magenta"
    return None


def _why_text(data: dict[str, Any]) -> str:
    error = data.get("error") or {}
    if error:
        return f": {error.get('code', '?')}: {error.get('message', '')}"
    return f": {data['detail']}" if data.get("detail") else ""


def _progress_text(data: dict[str, Any]) -> str:
    fraction = data.get("fraction")
    parts = [f"{fraction:.0%}"] if isinstance(fraction, int | float) else []
    parts += [str(data[name]) for name in ("step", "message") if data.get(name)]
    return " ".join(parts) or msgspec.json.encode(data).decode()


def _delta_text(delta: Any) -> str:
    """A string is appended as it is; any other item stands on its own line."""
    return delta if isinstance(delta, str) else msgspec.json.encode(delta).decode() + "\n"


def _whole_text(output: Any) -> str:
    if isinstance(output, str):
        return output
    return msgspec.json.format(msgspec.json.encode(output), indent=2).decode()

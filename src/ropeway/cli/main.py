"""The program `ropeway`: its commands, and one place where errors become a line and an exit code."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer
from typer.core import TyperGroup

from ropeway.cli import bench, doctor, files, fsck, jobs, keys, limits, prune, queues, schedules, up, webhooks
from ropeway.cli.exits import CODES_HELP, Exit, exit_of, message_of
from ropeway.cli.options import JsonLines
from ropeway.cli.output import err, lines_wanted, out, write_line
from ropeway.cli.teaching import help_text
from ropeway.domain.errors import RopewayError

__all__ = ["app", "main"]


class Commands(TyperGroup):
    """The commands, with Ropeway's own errors told as what they are: one line, no traceback, and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RopewayError as error:
            err().print(f"ropeway: {message_of(error)}", style="red", markup=False)
            raise typer.Exit(exit_of(error)) from error
        except KeyboardInterrupt:
            raise typer.Exit(Exit.interrupted) from None
        except BrokenPipeError:  # the reader of our output has gone: `ropeway jobs list | head`
            sys.stderr.close()
            raise typer.Exit(Exit.ok) from None


HELP = help_text(
    "A durable job queue and streaming gateway for AI inference.",
    "Settings come from flags, else from the environment (ROPEWAY_ENGINE, ROPEWAY_URL, ROPEWAY_SERVER_PORT, …), else "
    "from ropeway.toml. On a pipe every command writes lines of JSON.",
    CODES_HELP,
    examples=(
        "ropeway up chatbot:app          # gateway and worker on sqlite:ropeway.db",
        """ropeway jobs submit chat -i '{"prompt": "hi"}' --follow""",
        "ropeway jobs list --state failed",
        "ropeway doctor                  # is this machine fit?",
    ),
)

app = typer.Typer(
    cls=Commands, help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False
)
app.command(help=up.UP_HELP)(up.up)
app.command(help=up.API_HELP)(up.api)
app.command(help=up.WORKER_HELP)(up.worker)
app.add_typer(jobs.app, name="jobs")
app.add_typer(queues.app, name="queues")
app.add_typer(schedules.app, name="schedules")
app.add_typer(limits.app, name="limits")
app.add_typer(files.app, name="files")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(keys.app, name="keys")
app.command(help=bench.BENCH_HELP)(bench.bench)
app.command(help=doctor.DOCTOR_HELP)(doctor.doctor)
app.command()(prune.prune)
app.command(help=fsck.FSCK_HELP)(fsck.fsck)


@app.command("version")
def show_version(json: JsonLines = None) -> None:
    """Show the versions of Ropeway and of what it stands on."""
    parts = ("ropeway", "apsw", "msgspec", "starlette", "uvicorn", "uvloop")
    found = {part: _version(part) for part in parts} | {"python": platform.python_version()}
    if lines_wanted(json):
        write_line(found)
    else:
        for name, number in found.items():
            out().print(f"{name:10}{number}")


def main() -> None:
    """The console script."""
    app(prog_name="ropeway")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()

"""`ropeway files`: bytes too large for a job's own input, put, fetched, listed, deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from ropeway.cli.options import JsonLines, Reach, reaching
from ropeway.cli.output import lines_wanted, out, write_line
from ropeway.cli.teaching import help_text
from ropeway.client import Client
from ropeway.client.files import FileBody
from ropeway.domain.file import DEFAULT_PURPOSE

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Keep files for jobs to take, and fetch those that jobs made.")

FileIds = Annotated[list[str], typer.Argument(metavar="FILE...", help="Ids of files.")]
Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", exists=True, dir_okay=False, readable=True, help="Files of yours.")
]
Purpose = Annotated[str, typer.Option(metavar="WORD", help="What they are for.")]
Expires = Annotated[float | None, typer.Option(min=1, metavar="SECONDS", help="Kept so long. [default: for ever]")]

PUT_HELP = help_text(
    "Keep files; their ids come back, to stand in inputs.",
    examples=(
        "ropeway files put tile.tif",
        """ropeway jobs submit analyze -i '{"image": {"$file": "file_…"}}'""",
    ),
)
GET_HELP = help_text(
    "Fetch a file: into a folder under its own name, or under a name of yours. What came is checked by its SHA-256.",
    examples=("ropeway files get file_…", "ropeway files get file_… --output plot.png"),
)


@app.command(help=PUT_HELP)
@reaching
def put(
    paths: Paths,
    purpose: Purpose = DEFAULT_PURPOSE,
    expires_in: Expires = None,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        for path in paths:
            file = await client.upload(path, purpose=purpose, expires_in=expires_in)
            if lines:
                write_line(await client.files.get(file))
            else:
                out().print(f"{file.id}  {file.size:,} bytes  {path}", markup=False)

    reach.run(work)


@app.command(help=GET_HELP)
@reaching
def get(
    file_id: Annotated[str, typer.Argument(metavar="FILE", help="The file's id.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="Where to; a file or a folder.")
    ] = Path(),
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    path = reach.run(lambda client: client.download(file_id, output))
    if lines_wanted(json):
        write_line({"id": file_id, "path": str(path)})
    else:
        out().print(str(path), markup=False)


@app.command("list")
@reaching
def list_(
    purpose: Annotated[str | None, typer.Option(metavar="WORD", help="For this purpose only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    json: JsonLines = None,
    *,
    reach: Reach,
) -> None:
    """List uploads, newest first. Files of jobs are in their events and outputs."""
    lines = lines_wanted(json)

    async def work(client: Client) -> None:
        table = Table(
            Column("file", overflow="fold"), "name", "type", "purpose", Column("bytes", justify="right"), box=None
        )
        async for body in client.files.list(purpose=purpose, limit=limit):
            if lines:
                write_line(body)
            else:
                table.add_row(*_row(body))
        if not lines:
            out().print(table if table.row_count else "no such files")

    reach.run(work)


@app.command()
@reaching
def delete(
    file_ids: FileIds,
    *,
    reach: Reach,
) -> None:
    """Delete files, at once. A job that still needs one fails."""

    async def work(client: Client) -> None:
        for file_id in file_ids:
            await client.files.delete(file_id)

    reach.run(work)


def _row(body: FileBody) -> tuple[str, ...]:
    return body.id, body.filename, body.content_type, body.purpose, f"{body.bytes:,}"

"""`ropeway prune`: delete what is past its retention now, without waiting for a worker to do it."""

from __future__ import annotations

from ropeway.blobs import Files
from ropeway.blobs.connect import files_of
from ropeway.blobs.sweep import Sweep
from ropeway.cli.engine import with_engine
from ropeway.cli.options import Config, EngineUrl, JsonLines
from ropeway.cli.output import lines_wanted, out, write_line
from ropeway.config import load_settings
from ropeway.engines.base import Engine

__all__ = ["prune"]

BATCH_JOBS = 1000  # a pause between transactions for whoever else writes


def prune(engine: EngineUrl = None, json: JsonLines = None, config: Config = None) -> None:
    """Delete jobs past their retention, expired idempotency keys, and files that nobody needs.

    Workers do this by themselves, bit by bit.
    """
    blobs = load_settings({"engine": engine}, path=config).blobs

    async def work(opened: Engine) -> tuple[int, int]:
        deleted = 0
        while moved := await opened.prune(BATCH_JOBS):
            deleted += moved
        return deleted, await _sweep(files_of(opened, blobs), opened)

    deleted, files = with_engine(engine, config, work)
    if lines_wanted(json):
        write_line({"deleted": deleted, "files": files})
    else:
        out().print(f"deleted {deleted:,}" + (f", and {files:,} files" if files else ""))


async def _sweep(files: Files | None, engine: Engine) -> int:
    """One round over the files; how many went."""
    if files is None:
        return 0
    sweep, gone, over = Sweep(files, engine), 0, False
    while not over:
        swept, over = await sweep.step()
        gone += sum(swept)
    return gone

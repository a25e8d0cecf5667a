"""`ropeway prune`: delete what is past its retention now, without waiting for a worker to do it."""

from __future__ import annotations

from ropeway.cli.engine import with_engine
from ropeway.cli.options import Config, EngineUrl, JsonLines
from ropeway.cli.output import lines_wanted, out, write_line
from ropeway.engines.base import Engine

__all__ = ["prune"]

BATCH_JOBS = 1000  # a pause between transactions for whoever else writes


def prune(engine: EngineUrl = None, json: JsonLines = None, config: Config = None) -> None:
    """Delete jobs past their retention, and expired idempotency keys. Workers do this by themselves, bit by bit."""

    async def work(opened: Engine) -> int:
        deleted = 0
        while moved := await opened.prune(BATCH_JOBS):
            deleted += moved
        return deleted

    deleted = with_engine(engine, config, work)
    if lines_wanted(json):
        write_line({"deleted": deleted})
    else:
        out().print(f"deleted {deleted:,}")

"""A worker that no supervisor watches: `python lone_worker.py ENGINE`. Who kills it is noticed by its silence alone."""

from __future__ import annotations

import asyncio
import os
import sys

from victim import app

from ropeway import WorkerOptions, connect
from ropeway.cli.logs import start_logging
from ropeway.runtime import run_worker

__all__ = ["main"]


async def main(url: str) -> None:
    """Work until SIGTERM. Sessions are as short as LONE_TTL_MS says, 9 s when it does not."""
    options = WorkerOptions(concurrency=50, threads=2, session_ttl_ms=int(os.environ.get("LONE_TTL_MS", "9000")))
    engine = connect(url)
    await engine.open()
    try:
        await run_worker(app, engine, options)
    finally:
        await engine.shut()


if __name__ == "__main__":
    start_logging("info", "lone")
    asyncio.run(main(sys.argv[1]))

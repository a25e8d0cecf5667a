"""A worker on a SQLite file, for the tests of what signals do: `python process_worker.py DATABASE QUEUE`."""

from __future__ import annotations

import asyncio
import sys

from process_app import app

from ropeway.engines.sqlite import SqliteEngine
from ropeway.runtime import WorkerOptions, run_worker
from ropeway.runtime.link import SupervisorLink

__all__ = ["SESSION_TTL_MS", "main"]

SESSION_TTL_MS = 60_000  # so long that only a supervisor's word brings a dead worker's jobs back within a test


async def main(database: str, queue: str) -> None:
    engine = SqliteEngine(database)
    await engine.open()
    try:
        options = WorkerOptions(queues=(queue,), grace_s=60.0, session_ttl_ms=SESSION_TTL_MS)
        await run_worker(app, engine, options, link=SupervisorLink.from_environment())
    finally:
        await engine.shut()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

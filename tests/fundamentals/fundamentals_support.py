"""What these tests stand on: an application, a worker and a client in one process, on an engine in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ropeway import App, Client, Worker, WorkerOptions, connect

__all__ = ["WAIT_S", "running"]

WAIT_S = 20.0  # for a loaded machine: a test that waits so long has failed


@asynccontextmanager
async def running(app: App, **options: Any) -> AsyncIterator[Client]:
    """A client, with a worker that runs the application's jobs until the block ends."""
    engine = connect("memory:")
    await engine.open()
    worker = Worker(app, engine, WorkerOptions(**options))
    work = asyncio.create_task(worker.run())
    await worker.started()
    async with Client(engine) as client:
        yield client
    await worker.stop()
    await work
    await engine.shut()

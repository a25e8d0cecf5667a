"""What the pipeline's tests share: the application in this process, on any engine, with steps of milliseconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
from examples.pipeline import tasks
from examples.pipeline.settings import PipelineSettings
from examples.pipeline.web import PipelineWeb

from ropeway import WorkerOptions, connect
from ropeway.engines.base import Engine
from ropeway.serving import MOUNTED, GatewayOptions

__all__ = ["PATIENCE_S", "QUICK", "Pipeline", "eventually", "pipeline"]

QUICK = PipelineSettings(step1_s=0.02, step2_s=0.01, max_queued=20)
PATIENCE_S = 30.0


class Pipeline:
    """The application, asked over ASGI."""

    def __init__(self, http: httpx.AsyncClient, engine: Engine) -> None:
        self.http = http
        self.engine = engine

    async def submit(self, text: str = "some words", **fields: Any) -> dict[str, Any]:
        """Accepted."""
        answer = await self.http.post("/process", json={"text": text, **fields})
        assert answer.status_code == 202, answer.text
        return msgspec.json.decode(answer.content, type=dict[str, Any])

    async def refused(self, body: bytes, kind: str = "application/json") -> httpx.Response:
        """The answer to a body that is not accepted; always a problem."""
        answer = await self.http.post("/process", content=body, headers={"content-type": kind})
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        return answer

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=dict[str, Any])

    async def done(self, job_id: str) -> None:
        """Wait for a request's end, by the gateway's own long-poll."""
        job = await self.get(f"/v1/jobs/{job_id}?wait=30")
        assert job["finished_at"] is not None

    async def ended(self, text: str = "some words", **fields: Any) -> dict[str, Any]:
        """The status of a request that was submitted and has ended."""
        accepted = await self.submit(text, **fields)
        await self.done(accepted["job_id"])
        return await self.get(accepted["links"]["status"])


@asynccontextmanager
async def pipeline(
    url: str = "memory:",
    settings: PipelineSettings = QUICK,
    worker: WorkerOptions | None = None,
    options: GatewayOptions = MOUNTED,
) -> AsyncIterator[Pipeline]:
    """The pipeline on a new engine, with a worker in this process unless its options say it serves nothing."""
    usual, tasks.SETTINGS = tasks.SETTINGS, settings
    engine = connect(url)
    await engine.open()
    runs = worker or WorkerOptions(name="w1", concurrency=8, threads=16)
    application = PipelineWeb(engine, settings, options, runs)
    try:
        await application.start()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(application), base_url="http://pipeline.test"
        ) as http:
            yield Pipeline(http, engine)
    finally:
        await application.stop()
        await engine.shut()
        tasks.SETTINGS = usual


async def eventually(holds: Callable[[], Awaitable[bool]], name: str) -> None:
    """Wait until the condition holds, for what no event tells."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not await holds():
        assert time.monotonic() < deadline_s, f"waited in vain until {name}"
        await asyncio.sleep(0.01)

"""The time series, recorded by Ropeway itself: a job that streams a sample a second, whose log is the series.

    who samples     whoever leases the job: one process, however many gateways there are
    where it lives  in the job's event log, in the engine: it survives a restart, and runs on any engine
    how it ends     each job records one window and its log is pruned after KEPT_S: the series has a bounded size
    how to follow   GET /v1/jobs/<the job>/events streams it live

Every gateway submits the job of the current window under the same idempotency key, so that there is one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import msgspec

from examples.pipeline.gauge import Gauge
from examples.pipeline.shapes import Point
from ropeway import App, Client, Retry, RopewayError, Task, Worker, WorkerOptions
from ropeway.domain.event import OUTPUT_DELTA, START
from ropeway.domain.job import DEFAULT_TENANT, JobQuery
from ropeway.engines.base import Engine
from ropeway.runtime.link import SupervisorLink

__all__ = ["KEPT_S", "RECORD_QUEUE", "Recorder"]

RECORD_QUEUE = "pipeline-metrics"
PERIOD_S = 1.0
WINDOW_S = 300.0  # of one job: 300 samples, about 75 kB
KEPT_S = 6 * 3_600.0  # then a window is pruned: at most 73 windows, some 6 MB
SUBMIT_S = 15.0  # between two looks whether the current window has its job
MAX_TRIES = 1_000  # gateways may come and go, and the engine with them: a window is not given up

_decode = msgspec.json.Decoder(Point).decode


class _Delta(msgspec.Struct, frozen=True):
    delta: msgspec.Raw


_decode_delta = msgspec.json.Decoder(_Delta).decode


class Recorder:
    """Stands for recording, and reads what was recorded, on an open engine."""

    def __init__(self, engine: Engine, gauge: Gauge, link: SupervisorLink | None = None) -> None:
        self._engine = engine
        self._gauge = gauge
        self._app = App()
        self._record = self._declare()
        # no grace: at a stop the window is given back at once, and whoever is next goes on with it
        options = WorkerOptions(name="recorder", concurrency=1, threads=1, grace_s=0)
        self._worker = Worker(self._app, engine, options, link=link)  # whose death is then seen at once
        self._parts: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._parts = [asyncio.create_task(self._worker.run()), asyncio.create_task(self._submit_windows())]
        await self._worker.started()

    async def stop(self) -> None:
        """Leave the current window to whoever is next."""
        parts, self._parts = self._parts, []
        if parts:
            await self._worker.stop()
            parts[1].cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def points(self, since_ms: int, limit: int) -> list[Point]:
        """The latest `limit` points since then, oldest first."""
        found: list[Point] = []
        cursor: str | None = None
        while len(found) < limit:
            query = JobQuery(DEFAULT_TENANT, queue=RECORD_QUEUE, limit=8, before=cursor)
            page = await self._engine.find(query)
            for job in page.jobs:
                found = [*await self._points_of(job.id, since_ms), *found]
                if len(found) >= limit or job.created_at_ms < since_ms:
                    return found[-limit:]
            if (cursor := page.next_cursor) is None:
                break
        return found[-limit:]

    async def _points_of(self, job_id: str, since_ms: int) -> list[Point]:
        """What one window holds, of all its attempts: another gateway may have gone on where one stopped."""
        points: list[Point] = []
        cursor, ended = START, False
        while not ended:
            page = await self._engine.read(DEFAULT_TENANT, job_id, cursor, 1_000)
            if page is None or not page.events:
                break
            deltas = [event for event in page.events if event.type == OUTPUT_DELTA and event.at_ms >= since_ms]
            points += [_decode(_decode_delta(event.data).delta) for event in deltas]
            cursor, ended = page.events[-1].cursor, page.ended
        return points

    def _declare(self) -> Task[..., AsyncIterator[Point], list[Point]]:
        @self._app.task(
            queue=RECORD_QUEUE,
            retention=KEPT_S,
            failed_retention=KEPT_S,
            queue_timeout=WINDOW_S,
            retry=Retry(max_attempts=MAX_TRIES, cap_s=5),
            max_crashes=MAX_TRIES,
        )
        async def record(until: float) -> AsyncIterator[Point]:
            """Sample the pipeline once a second until `until`, in seconds since the epoch."""
            while time.time() < until:
                yield await self._gauge.point()
                await asyncio.sleep(PERIOD_S - time.time() % PERIOD_S)

        return record

    async def _submit_windows(self) -> None:
        """See to it that the current window has its job. Until cancelled."""
        async with Client(self._engine) as client:
            while True:
                window = int(time.time() // WINDOW_S)
                submitter = client.with_options(idempotency_key=f"pipeline-record-{window}")
                with contextlib.suppress(RopewayError):  # an engine that does not answer is asked again
                    await submitter.submit(self._record, until=(window + 1) * WINDOW_S)
                await asyncio.sleep(min(SUBMIT_S, WINDOW_S - time.time() % WINDOW_S))

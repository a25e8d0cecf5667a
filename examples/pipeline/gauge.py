"""One look at the pipeline: its queue, its workers, and this machine's account of their processes."""

from __future__ import annotations

import os
import socket
import time

from examples.pipeline.processes import process_use
from examples.pipeline.settings import QUEUE, PipelineSettings
from examples.pipeline.shapes import DatabaseStats, Efficiency, Point, ProcessUse, QueueStatus
from examples.pipeline.store import size_bytes
from examples.pipeline.views import efficiency, point, queue_status
from ropeway.domain.job import DEFAULT_TENANT, JobQuery
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueStats
from ropeway.domain.worker import WorkerCard
from ropeway.engines.base import Engine

__all__ = ["Gauge"]

LEAST_WAIT_S, MOST_WAIT_S = 1.0, 60.0
LATEST = 100  # requests that averages are taken over


class Gauge:
    """Reads an open engine, anew each time it is asked."""

    def __init__(self, engine: Engine, settings: PipelineSettings) -> None:
        self._engine = engine
        self._settings = settings

    async def queue(self) -> QueueStatus:
        return queue_status(await self._stats(), await self._workers(), self._settings.mode, _now_ms())

    async def efficiency(self) -> Efficiency:
        workers = await self._workers()
        processes = (*_here(workers), process_use("gateway", os.getpid()))
        known = tuple(process for process in processes if process is not None)
        return efficiency(await self._stats(), workers, self._settings.mode, known)

    async def point(self) -> Point:
        return point(await self._stats(), await self._workers(), self._settings.mode, _now_ms())

    async def database(self) -> DatabaseStats:
        stats, info = await self._stats(), self._engine.info
        counts = {state.value: int(getattr(stats, state.value)) for state in State}
        ran_s, waited_s = await self._latest()
        return DatabaseStats(
            engine=info.kind,
            url=info.url,
            durability=info.durability,
            version=info.version,
            requests=sum(counts.values()),
            by_status=counts,
            retention=self._settings.retention_s,
            size_bytes=size_bytes(info.url),
            latest=len(ran_s),
            average_processing_time=_mean(ran_s),
            average_wait=_mean(waited_s),
        )

    async def drain_s(self, waiting: int) -> float:
        """About how long the workers that are here need for what waits: 1 to 60 s, as Retry-After is told."""
        slots = sum(card.slots for card in await self._workers())
        step_s = max(self._settings.step1_s, self._settings.step2_s)
        return min(max(waiting * step_s / slots, LEAST_WAIT_S), MOST_WAIT_S) if slots else MOST_WAIT_S

    async def _stats(self) -> QueueStats:
        found = (stats for stats in await self._engine.stats(DEFAULT_TENANT) if stats.queue == QUEUE)
        return next(found, QueueStats(QUEUE))

    async def _workers(self) -> list[WorkerCard]:
        return sorted(
            (card for card in await self._engine.workers() if QUEUE in card.queues), key=lambda card: card.name
        )

    async def _latest(self) -> tuple[list[float], list[float]]:
        """Seconds of running and of waiting of the requests that were submitted last and have succeeded."""
        query = JobQuery(DEFAULT_TENANT, states=(State.succeeded,), queue=QUEUE, limit=LATEST)
        jobs = (await self._engine.find(query)).jobs
        ran = [
            (job.finished_at_ms - job.started_at_ms) / 1000 for job in jobs if job.finished_at_ms and job.started_at_ms
        ]
        waited = [(job.started_at_ms - job.created_at_ms) / 1000 for job in jobs if job.started_at_ms]
        return ran, waited


def _here(workers: list[WorkerCard]) -> list[ProcessUse | None]:
    """The workers of this machine that are processes of their own."""
    host, own = socket.gethostname(), os.getpid()
    return [process_use(card.name, card.pid) for card in workers if card.host == host and card.pid != own]


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

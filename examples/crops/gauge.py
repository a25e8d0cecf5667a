"""One look at the line: what waits, who works, how long it will take, and what somebody should look at."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from examples.crops.settings import GPU_CALLS, GPU_QUEUE, QUEUE, CropsSettings
from examples.crops.shapes import Alert, Stats
from ropeway.domain.job import DEFAULT_TENANT, Job, JobQuery
from ropeway.domain.label import GPU
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueStats
from ropeway.domain.worker import WorkerCard
from ropeway.engines.base import Engine

__all__ = ["Gauge"]

MOST_PENDING = 50
MOST_PROCESSING_S = 30.0
MOST_FAILED = 5
FAILED_WITHIN_S = 3_600.0
MISSED_FOR_S = 900.0  # a worker that was here is missed for so long; then it is taken to have been sent away

LATEST = 20  # jobs that the time of a job is averaged over
LOOKED_AT = 200
FRESH_S = 1.0  # an upload is answered from a look of that age: it has a tenth of a second for everything


class Gauge:
    """Reads an open engine. Of one gateway: it remembers which workers it has seen."""

    def __init__(self, engine: Engine, own: CropsSettings) -> None:
        self._engine = engine
        self._at_once = {QUEUE: own.cpu_batch, GPU_QUEUE: own.batch * GPU_CALLS}
        self._seen: dict[str, float] = {}
        self._average: tuple[float, float | None] = (-math.inf, None)

    async def stats(self) -> Stats:
        """The figures of now, with the alerts that follow from them."""
        queues, workers, now_ms = await self._queues(), await self._workers(), time.time_ns() // 1_000_000
        oldest = [queue.oldest_queued_at_ms for queue in queues if queue.oldest_queued_at_ms]
        waiting = sum(queue.waiting for queue in queues)
        return Stats(
            queued=waiting,
            running=sum(queue.running for queue in queues),
            active_workers=len(workers),
            gpu_workers=sum(GPU in card.labels for card in workers),
            finished=sum(queue.succeeded for queue in queues),
            failed=sum(queue.failed for queue in queues),
            cancelled=sum(queue.cancelled for queue in queues),
            oldest_waits_seconds=max((now_ms - min(oldest)) / 1000, 0) if oldest else None,
            average_seconds=await self._average_s(),
            alerts=tuple(await self._alerts(waiting, workers, now_ms)),
        )

    async def has_gpu(self) -> bool:
        """Whether a worker is here that takes jobs for a GPU."""
        return any(GPU in card.labels and GPU_QUEUE in card.queues for card in await self._workers())

    async def wait_s(self, queue: str) -> float | None:
        """About how long until a job that is submitted now has its result; None while nobody works, or nobody has.

        Rounds of calls that are before it, its own among them, each as long as the latest were.
        """
        cards = [card for card in await self._workers() if queue in card.queues]
        average_s = await self._average_s()
        if not cards or average_s is None:
            return None
        found = next((one for one in await self._queues() if one.queue == queue), QueueStats(queue))
        rounds = found.waiting // (len(cards) * self._at_once[queue]) + 1
        busy = 0.5 if found.running >= len(cards) else 0  # a call that runs is half over, on average
        return round((rounds + busy) * average_s, 1)

    async def _alerts(self, waiting: int, workers: Sequence[WorkerCard], now_ms: int) -> list[Alert]:
        found = []
        if waiting > MOST_PENDING:
            found.append(Alert("pending", waiting, MOST_PENDING, f"{waiting} images wait"))
        running = await self._jobs(State.running)
        longest_s = max(((now_ms - (job.started_at_ms or now_ms)) / 1000 for job in running), default=0.0)
        if longest_s > MOST_PROCESSING_S:
            found.append(
                Alert("processing", longest_s, MOST_PROCESSING_S, f"an image has been worked on for {longest_s:.0f} s")
            )
        failed = sum(
            now_ms - (job.finished_at_ms or 0) < FAILED_WITHIN_S * 1000 for job in await self._jobs(State.failed)
        )
        if failed > MOST_FAILED:
            found.append(Alert("failed", failed, MOST_FAILED, f"{failed} images failed within an hour"))
        missing = self._missing(workers)
        if missing or (waiting and not workers):
            told = f"gone: {', '.join(missing)}" if missing else "images wait, and no worker is here"
            found.append(Alert("worker_offline", len(missing) or 1, 0, told))
        return found

    def _missing(self, workers: Sequence[WorkerCard]) -> list[str]:
        """Workers that were seen not long ago, and did not say that they leave."""
        now_s = time.monotonic()
        for card in workers:
            if card.state == "draining":
                self._seen.pop(card.name, None)
            else:
                self._seen[card.name] = now_s
        here = {card.name for card in workers}
        self._seen = {name: at_s for name, at_s in self._seen.items() if now_s - at_s < MISSED_FOR_S}
        return sorted(name for name in self._seen if name not in here)

    async def _average_s(self) -> float | None:
        """Seconds that the latest jobs ran."""
        at_s, known = self._average
        if time.monotonic() - at_s > FRESH_S:
            ran = [
                (job.finished_at_ms - job.started_at_ms) / 1000
                for job in (await self._jobs(State.succeeded, LATEST))
                if job.finished_at_ms and job.started_at_ms
            ]
            known = round(sum(ran) / len(ran), 2) if ran else None
            self._average = (time.monotonic() if ran else -math.inf, known)
        return known

    async def _jobs(self, state: State, limit: int = LOOKED_AT) -> list[Job]:
        found: list[Job] = []
        for queue in (QUEUE, GPU_QUEUE):
            query = JobQuery(DEFAULT_TENANT, states=(state,), queue=queue, limit=limit)
            found += (await self._engine.find(query)).jobs
        return found

    async def _queues(self) -> list[QueueStats]:
        return [stats for stats in await self._engine.stats(DEFAULT_TENANT) if stats.queue in (QUEUE, GPU_QUEUE)]

    async def _workers(self) -> list[WorkerCard]:
        return [card for card in await self._engine.workers() if {QUEUE, GPU_QUEUE} & set(card.queues)]

"""From what the engine holds to what the pipeline's routes say. Nothing here is stored a second time."""

from __future__ import annotations

import msgspec

from examples.pipeline.settings import THREADS_PER_REQUEST
from examples.pipeline.shapes import Efficiency, Point, ProcessUse, QueueStatus, RequestStatus, WorkerUse
from examples.pipeline.tasks import Processed
from ropeway import JobError
from ropeway.client.wire import timestamp
from ropeway.domain.job import Job
from ropeway.domain.queue import QueueStats
from ropeway.domain.worker import WorkerCard

__all__ = ["REQUEST_ID", "efficiency", "point", "queue_status", "request_status"]

REQUEST_ID = "request_id"
"""The metadata under which a job keeps the id that its client gave."""

BUSY_PERCENT = 90.0
IDLE_PERCENT = 25.0

_decode_input = msgspec.json.Decoder(dict[str, str]).decode
_decode_output = msgspec.json.Decoder(Processed).decode
_decode_error = msgspec.json.Decoder(JobError).decode


def request_status(job: Job, position: int | None = None) -> RequestStatus:
    """All that is stored of a request."""
    done = None if job.output is None else _decode_output(job.output)
    error = None if job.error is None else _decode_error(job.error)
    ran = job.started_at_ms is not None and job.finished_at_ms is not None
    return RequestStatus(
        id=job.options.metadata.get(REQUEST_ID, job.id),
        job_id=job.id,
        text=_decode_input(job.input)["text"],
        status=job.state.value,
        created=timestamp(job.created_at_ms),
        queued=timestamp(job.created_at_ms),
        attempt=job.attempt,
        worker=job.worker,
        started=_instant(job.started_at_ms),
        completed=_instant(job.finished_at_ms),
        processing_time=((job.finished_at_ms or 0) - (job.started_at_ms or 0)) / 1000 if ran else None,
        steps_time=done.seconds if done else None,
        step_1=done.step_1 if done else None,
        step_2=done.step_2 if done else None,
        result=done.result if done else None,
        thread=f"{done.step_1.thread}, {done.step_2.thread}" if done else None,
        error=f"{error.code}: {error.message}" if error else job.cancel_reason,
        position=position,
    )


def queue_status(stats: QueueStats, workers: list[WorkerCard], mode: str, now_ms: int) -> QueueStatus:
    """The line now. It is one line for all workers, so that none waits while another is free."""
    limit = stats.policy.max_depth if stats.policy else 0
    share, rest = divmod(stats.waiting, max(len(workers), 1))
    return QueueStatus(
        waiting=stats.waiting,
        running=stats.running,
        succeeded=stats.succeeded,
        failed=stats.failed,
        cancelled=stats.cancelled,
        limit=limit,
        free=max(limit - stats.waiting, 0),
        oldest_waits=_seconds_since(stats.oldest_queued_at_ms, now_ms),
        threads_in_use=threads_in_use(workers, mode),
        workers=tuple(
            WorkerUse(card.name, card.state, card.running, card.slots, share + (number < rest))
            for number, card in enumerate(workers)
        ),
    )


def threads_in_use(workers: list[WorkerCard], mode: str) -> int:
    """Threads that run steps: two for each request in flight, and no more than are alive.

    A bound from above: a request gives one back when its shorter step ends. What is alive, the workers tell every 2 s.
    """
    if mode != "thread":
        return 0
    return sum(min(card.running * THREADS_PER_REQUEST, max(card.threads, card.running)) for card in workers)


def efficiency(
    stats: QueueStats, workers: list[WorkerCard], mode: str, processes: tuple[ProcessUse, ...]
) -> Efficiency:
    """How much of what was started is used, and what to change."""
    slots = sum(card.slots for card in workers)
    in_flight = sum(card.running for card in workers)
    per_request = THREADS_PER_REQUEST if mode == "thread" else 0
    total = slots * per_request
    in_use = threads_in_use(workers, mode)
    return Efficiency(
        in_use=in_use,
        total=total,
        percent=_percent(in_use, total),
        alive=sum(card.threads for card in workers),
        in_flight=in_flight,
        slots=slots,
        in_flight_percent=_percent(in_flight, slots),
        threads_per_request=per_request,
        advice=advice(slots, _percent(in_flight, slots), stats.waiting),
        processes=processes,
    )


def advice(slots: int, percent: float, waiting: int) -> str:
    """What to do about it, in a sentence."""
    if not slots:
        return "no worker is here: start one, the requests wait"
    if percent >= BUSY_PERCENT and waiting:
        return f"all places are taken and {waiting:,} requests wait: more workers or threads, if GET /sizing allows"
    if percent >= BUSY_PERCENT:
        return "nearly all places are taken and nothing waits: it is sized well, with no room for more"
    if waiting > slots:
        return f"{waiting:,} requests wait while places are free: they are being taken now, or the queue is paused"
    if percent < IDLE_PERCENT:
        return "most places are free: fewer threads would do for this load; idle ones end after 10 s by themselves"
    return "there is room for more"


def point(stats: QueueStats, workers: list[WorkerCard], mode: str, now_ms: int) -> Point:
    """A second of the time series."""
    return Point(
        at=timestamp(now_ms),
        queued=stats.waiting,
        queued_per_worker=round(stats.waiting / max(len(workers), 1), 1),
        running=stats.running,
        active_threads=threads_in_use(workers, mode),
        processed=stats.succeeded + stats.failed + stats.cancelled,
        failed=stats.failed,
        workers={card.name: card.running for card in workers},
    )


def _instant(at_ms: int | None) -> str | None:
    return None if at_ms is None else timestamp(at_ms)


def _seconds_since(at_ms: int | None, now_ms: int) -> float | None:
    return None if at_ms is None else max(now_ms - at_ms, 0) / 1000


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0

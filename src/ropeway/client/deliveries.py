"""What became of a job's webhook: its deliveries and their attempts, read from the deliveries' own logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from ropeway.domain.errors import JobNotFound, JobNotRetryable, RopewayError
from ropeway.domain.event import OUTPUT_DELTA, RETRYING, START, STARTED, Cursor, Event
from ropeway.domain.instants import timestamp
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.domain.webhook import DELIVERY_TASK, delivery_id
from ropeway.engines.base import Engine

__all__ = ["MOST_DELIVERIES", "AttemptBody", "DeliveryBody", "DeliveryList", "deliveries_of", "redelivered"]

MOST_DELIVERIES = 32  # of one job: the one of its end, and those that were asked for after it
PAGE_EVENTS = 500


class AttemptBody(msgspec.Struct, frozen=True):
    """One attempt to deliver.

    `status` is that of the endpoint's answer, None when none came; `error` says what went wrong, None for a success or
    while it is under way; `excerpt` is the beginning of what was answered, at most 1 kB; `duration` in seconds;
    `next_at` is when the next attempt was to be.
    """

    attempt: int
    at: str
    status: int | None = None
    error: str | None = None
    message: str | None = None
    excerpt: str = ""
    duration: float | None = None
    next_at: str | None = None


class DeliveryBody(msgspec.Struct, frozen=True):
    """One delivery of a job's end. `state` is that of the job that delivers; `redelivery_of`: which it repeats."""

    id: str
    job_id: str
    url: str
    type: str
    state: State
    created_at: str
    object: Literal["delivery"] = "delivery"
    finished_at: str | None = None
    next_at: str | None = None
    redelivery_of: str | None = None
    attempts: list[AttemptBody] = []


class DeliveryList(msgspec.Struct, frozen=True):
    """All deliveries of a job, the oldest first."""

    data: list[DeliveryBody]


class _Message(msgspec.Struct, frozen=True):
    url: str = ""
    type: str = ""


class _Attempted(msgspec.Struct, frozen=True):
    """What the sender tells of an attempt (see `operations.webhooks.sender`)."""

    status: int | None = None
    error: str | None = None
    message: str | None = None
    excerpt: str = ""
    duration: float | None = None


class _Told(msgspec.Struct, frozen=True):
    delta: _Attempted = _Attempted()


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_told = msgspec.json.Decoder(_Told).decode


async def deliveries_of(engine: Engine, tenant: str, job_id: str) -> list[DeliveryBody]:
    """All that there are of a job's end, also when the job itself has gone. Raises JobNotFound if none is known."""
    known, *found = await engine.get(tenant, [job_id, *_ids(job_id)])
    deliveries = [job for job in found if job is not None and job.task == DELIVERY_TASK]
    if known is None and not deliveries:
        raise JobNotFound(f"no job {job_id}")
    return [_delivery_body(job, job_id, await _log(engine, job)) for job in deliveries]


async def redelivered(engine: Engine, tenant: str, job_id: str, id_: str) -> DeliveryBody:
    """Deliver again what an ended delivery of this job held.

    Raises JobNotFound when the job has no such delivery; JobNotRetryable while that one goes on, and once there are as
    many of the job as may be; QueueFull.
    """
    ids = _ids(job_id)
    found = await engine.get(tenant, ids)
    taken = {job.id for job in found if job is not None}
    if id_ not in taken:
        raise JobNotFound(f"no delivery {id_} of job {job_id}")
    free = next((other for other in ids if other not in taken), None)
    if free is None:
        raise JobNotRetryable(f"{job_id} has {MOST_DELIVERIES} deliveries, which is the most")
    (answer,) = await engine.retry(tenant, [(id_, free)])
    if isinstance(answer, RopewayError):
        raise answer
    return _delivery_body(answer.job, job_id, ())


def _ids(job_id: str) -> list[str]:
    return [delivery_id(job_id, number) for number in range(MOST_DELIVERIES)]


async def _log(engine: Engine, job: Job) -> list[Event]:
    events: list[Event] = []
    cursor: Cursor = START
    while True:
        page = await engine.read(job.tenant, job.id, cursor, PAGE_EVENTS)
        if page is None:
            return events
        events += page.events
        if page.ended or len(page.events) < PAGE_EVENTS:
            return events
        cursor = page.events[-1].cursor


def _delivery_body(job: Job, job_id: str, log: Sequence[Event]) -> DeliveryBody:
    message = _decode_message(job.input)
    return DeliveryBody(
        id=job.id,
        job_id=job_id,
        url=message.url,
        type=message.type,
        state=job.state,
        created_at=timestamp(job.created_at_ms),
        finished_at=None if job.finished_at_ms is None else timestamp(job.finished_at_ms),
        next_at=None if job.run_at_ms is None else timestamp(job.run_at_ms),
        redelivery_of=job.retry_of,
        attempts=_attempts(job, log),
    )


def _attempts(job: Job, log: Iterable[Event]) -> list[AttemptBody]:
    """A pure fold over the log. An attempt that was given back at a drain, or lost its worker, tells so."""
    attempts: list[AttemptBody] = []
    for event in log:
        if event.type == STARTED:
            attempts.append(AttemptBody(event.attempt, timestamp(event.at_ms)))
        elif event.type == OUTPUT_DELTA and attempts:
            told = msgspec.structs.asdict(_decode_told(event.data).delta)
            attempts[-1] = msgspec.structs.replace(attempts[-1], **told)
        elif event.type == RETRYING and attempts:
            attempts[-1] = _given_up(attempts[-1], msgspec.json.decode(event.data))
    if attempts and job.state is State.failed and attempts[-1].error is None:
        attempts[-1] = _given_up(attempts[-1], {"error": msgspec.json.decode(job.error or "{}")})
    return attempts


def _given_up(attempt: AttemptBody, data: dict[str, Any]) -> AttemptBody:
    """An attempt after which there is another; one that told nothing itself has why from the engine."""
    error = data.get("error") or {}
    next_at_ms = data.get("run_at_ms")
    return msgspec.structs.replace(
        attempt,
        error=attempt.error or error.get("code") or data.get("reason"),
        message=attempt.message or error.get("message"),
        next_at=None if next_at_ms is None else timestamp(next_at_ms),
    )

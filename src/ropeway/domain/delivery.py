"""Deliveries: the job that tells a webhook of another job's end.

A delivery is a job like any other, made in the very step that ends the job it tells of (the outbox): there is one if
and only if the other has ended. Its id follows from that job's, so it is found without a search and cannot be made
twice. It carries what it will send, since the job itself may be gone before the last try.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.domain.instants import timestamp
from ropeway.domain.job import Job, JobOptions, NewJob
from ropeway.domain.log import terminal_type
from ropeway.domain.webhook import DELIVERY_QUEUE, DELIVERY_RETRY, DELIVERY_TASK, delivery_id

__all__ = ["BODY_LIMIT_BYTES", "delivery_of"]

BODY_LIMIT_BYTES = 20_000  # Standard Webhooks, "Payload size"

_OPTIONS = JobOptions(
    timeout_s=60.0,  # the sender gives up much earlier; this is for a sender that hangs
    retention_s=7 * 86_400.0,
    failed_retention_s=30 * 86_400.0,
    retry=DELIVERY_RETRY,
    max_crashes=100,  # workers die of their other jobs, and a delivery is not to blame
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode


def delivery_of(job: Job) -> NewJob | None:
    """The job that delivers the end of this one; None when nobody asked for that."""
    hook = job.options.webhook
    if hook is None:
        return None
    type_ = terminal_type(job.state)
    if type_ not in hook.events:
        return None
    input_ = {
        "url": hook.url,
        "type": type_,
        "job_id": job.id,
        "timestamp": timestamp(job.finished_at_ms or 0),
        "data": _data(job),
    }
    traceparent = job.options.traceparent
    return NewJob(
        delivery_id(job.id),
        job.tenant,
        DELIVERY_QUEUE,
        DELIVERY_TASK,
        _encode(input_).decode(),
        options=_OPTIONS if traceparent is None else msgspec.structs.replace(_OPTIONS, traceparent=traceparent),
    )


def _data(job: Job) -> dict[str, Any]:
    """The ended job as a receiver gets it; its output only while the whole stays small."""
    path = f"/v1/jobs/{job.id}"
    data: dict[str, Any] = {
        "id": job.id,
        "object": "job",
        "task": job.task,
        "queue": job.queue,
        "state": job.state,
        "attempt": job.attempt,
        "created_at": timestamp(job.created_at_ms),
        "started_at": None if job.started_at_ms is None else timestamp(job.started_at_ms),
        "finished_at": timestamp(job.finished_at_ms or 0),
        "cancel_reason": job.cancel_reason,
        "error": None if job.error is None else _told(job.error),
        "usage": None if job.usage is None else msgspec.Raw(job.usage.encode()),
        "retry_of": job.retry_of,
        "metadata": job.options.metadata,
        "tags": job.options.tags,
        "links": {"self": path, "result": f"{path}/result"},
    }
    output = (job.output or "null").encode()
    fits = len(output) + len(_encode(data)) <= BODY_LIMIT_BYTES
    return {**data, "output": msgspec.Raw(output)} if fits else {**data, "output_omitted": True}


def _told(error: str) -> Any:
    """A job's error without the traceback, which is for the job's owner alone."""
    told = _decode(error)
    told.pop("traceback", None)
    return told

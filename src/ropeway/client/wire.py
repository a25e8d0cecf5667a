"""The JSON shapes that clients and gateways exchange: the same on HTTP, SSE, NDJSON and from a local engine.

Times are RFC 3339 UTC, durations are seconds. Requests forbid unknown fields; answers may grow.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ropeway.domain.errors import JobError
from ropeway.domain.event import Event
from ropeway.domain.flow import HOLD_MS
from ropeway.domain.instants import timestamp
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.domain.output import shown_data
from ropeway.domain.rank import Priority
from ropeway.domain.targets import masked
from ropeway.domain.webhook import WEBHOOK_EVENTS, Webhook, WebhookEvent

__all__ = [
    "CacheRequest",
    "EventBody",
    "JobBody",
    "JobLinks",
    "JobList",
    "JobRequest",
    "RetryRequest",
    "Timings",
    "WebhookBody",
    "event_body",
    "job_body",
    "request_json",
    "timestamp",
]

PriorityName = Literal["low", "normal", "high"]
AfterFailure = Literal["fail", "run"]


class RetryRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a submit may change of the task's retry policy."""

    max_attempts: int | None = None
    base_s: float | None = None
    factor: float | None = None
    cap_s: float | None = None
    schedule_s: tuple[float, ...] | None = None


class CacheRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a submit wants of the result cache.

    `use`: an earlier result, or a share in the job that is under way. `refresh`: a new job, for those who come after it
    too. `off`: a job of its own. `ttl`: a result of at most this age, in seconds.
    """

    mode: Literal["use", "refresh", "off"] = "use"
    ttl: float | None = None


class JobRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A submit. What is None, or left out, is as the task declares it. Durations are seconds.

    `run_at`: not before this instant, instead of `delay`: RFC 3339, or a time with a zone behind it (RFC 9557).
    `cache`: False for a job of its own; True, or what is wanted, also where the task declares no cache.
    `after`: jobs that have to end first, beside those whose outputs stand in the input as `{"$output": "job_..."}`;
    `after_failure`: what becomes of it when one of them does not succeed. `run`: it runs when all have ended.
    """

    task: str
    input: msgspec.Raw = msgspec.Raw(b"{}")
    queue: str | None = None
    priority: PriorityName | None = None
    delay: float = 0
    run_at: str | None = None
    queue_timeout: float | None = None
    timeout: float | None = None
    first_output_timeout: float | None = None
    output_timeout: float | None = None
    retention: float | None = None
    retry: RetryRequest | None = None
    concurrency_key: str | None = None
    cost: float | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    metadata: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    webhook: Webhook | None = None
    cache: bool | CacheRequest | None = None
    after: tuple[str, ...] = ()
    after_failure: AfterFailure | None = None


class Timings(msgspec.Struct, frozen=True):
    """Seconds: waiting before the last start, running, and from start to the first output; None when not yet."""

    queue: float | None = None
    run: float | None = None
    first_output: float | None = None


class JobLinks(msgspec.Struct, frozen=True):
    self: str
    events: str
    result: str
    cancel: str


class WebhookBody(msgspec.Struct, frozen=True):
    """Whom the job's end is told. `url` without its path, in which a secret may be; the deliveries have it whole."""

    url: str
    events: tuple[WebhookEvent, ...] = WEBHOOK_EVENTS


class JobBody(msgspec.Struct, frozen=True):
    """A job as the world sees it.

    `waiting_for` is the key of the limit that a queued job waits for; its position is then among those that do.
    `cached` stands in the answer to a submit that another's job serves; `joined` is how many submits share the job
    beside its first. `after` are the jobs that it waits for, or waited, before its first start; `parent` is the job
    that submitted it. `run_at` is None where a job waits for others, or for an input, and not for a time.
    """

    id: str
    task: str
    queue: str
    state: State
    version: int
    attempt: int
    priority: PriorityName
    created_at: str
    object: Literal["job"] = "job"
    run_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    expires_at: str | None = None
    cancel_requested_at: str | None = None
    cancel_reason: str | None = None
    queue_position: int | None = None
    waiting_for: str | None = None
    eta: float | None = None
    progress: Any = None
    input: Any = None
    output: Any = None
    error: JobError | None = None
    usage: Any = None
    cached: bool = False
    joined: int = 0
    durability: str | None = None
    timings: Timings = Timings()
    worker: str | None = None
    last_event_id: str = "0-1"
    retry_of: str | None = None
    after: tuple[str, ...] = ()
    after_failure: AfterFailure | None = None
    parent: str | None = None
    metadata: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    webhook: WebhookBody | None = None
    links: JobLinks | None = None


class JobList(msgspec.Struct, frozen=True):
    """A page of jobs, newest first. `next_cursor` asks for the next page; None on the last."""

    data: list[JobBody]
    has_more: bool = False
    next_cursor: str | None = None


class EventBody(msgspec.Struct, frozen=True):
    """An event as the world sees it: the envelope of SSE, NDJSON and WebSocket."""

    id: str
    seq: int
    type: str
    job_id: str
    attempt: int
    at: str
    data: Any


def request_json(request: JobRequest) -> bytes:
    """The request as a person would write it: only what it sets. Two ways to say the same get one fingerprint."""
    fields = msgspec.structs.asdict(request).items()
    body = {name: value for name, value in fields if value is not None and value != _UNSAID.get(name)}
    if request.retry is not None:
        body["retry"] = {name: n for name, n in msgspec.structs.asdict(request.retry).items() if n is not None}
    return msgspec.json.encode(body)


def job_body(
    job: Job,
    *,
    position: int | None = None,
    eta_s: float | None = None,
    durability: str | None = None,
    base: str = "",
    with_input: bool = True,
    with_output: bool = True,
    cached: bool = False,
) -> JobBody:
    """The public form of a job. `base` is where the gateway is mounted; links start with it.

    What is left out (the input of an answer to its own submit, both in lists) is no member of the JSON at all.
    """
    path = f"{base}/v1/jobs/{job.id}"
    return JobBody(
        id=job.id,
        task=job.task,
        queue=job.queue,
        state=job.state,
        version=job.version,
        attempt=job.attempt,
        priority=_PRIORITY_NAMES[job.priority],
        created_at=timestamp(job.created_at_ms),
        run_at=_time(_run_at_ms(job)),
        started_at=_time(job.started_at_ms),
        finished_at=_time(job.finished_at_ms),
        expires_at=_time(job.expires_at_ms),
        cancel_requested_at=_time(job.cancel_requested_at_ms),
        cancel_reason=job.cancel_reason,
        queue_position=position,
        waiting_for=job.parked,
        eta=eta_s,
        progress=_raw(job.progress),
        input=_raw(job.input) if with_input else msgspec.UNSET,
        output=_raw(job.output) if with_output else msgspec.UNSET,
        error=None if job.error is None else msgspec.json.decode(job.error, type=JobError),
        usage=_raw(job.usage),
        cached=cached,
        joined=job.joined,
        durability=durability,
        timings=_timings(job),
        worker=job.worker,
        last_event_id=str(job.last_cursor),
        retry_of=job.retry_of,
        after=job.options.after,
        after_failure=_after_failure(job),
        parent=job.options.parent,
        metadata=job.options.metadata,
        tags=job.options.tags,
        webhook=_webhook(job.options.webhook),
        links=JobLinks(path, f"{path}/events", f"{path}/result", f"{path}/cancel"),
    )


def event_body(event: Event, job: JobBody | None = None) -> EventBody:
    """The public form of an event; a terminal one carries the final job, when given."""
    data: Any = msgspec.Raw(shown_data(event).encode()) if job is None else job
    return EventBody(event.id, event.seq, event.type, event.job_id, event.attempt, timestamp(event.at_ms), data)


_UNSAID: dict[str, object] = {"delay": 0, "metadata": {}, "tags": (), "after": ()}

_PRIORITY_NAMES: dict[Priority, PriorityName] = {
    Priority.low: "low",
    Priority.normal: "normal",
    Priority.high: "high",
}


def _run_at_ms(job: Job) -> int | None:
    """When a scheduled job goes on; None where that is a time that never comes, to be woken before (domain/flow.py)."""
    if job.run_at_ms is None or job.run_at_ms - job.created_at_ms < HOLD_MS:
        return job.run_at_ms
    return None if job.options.after or job.runs else job.run_at_ms  # a plain delay may be as long


def _after_failure(job: Job) -> AfterFailure | None:
    if not job.options.after:
        return None
    return "run" if job.options.after_failure == "run" else "fail"


def _timings(job: Job) -> Timings:
    def seconds(start: int | None, end: int | None) -> float | None:
        return None if start is None or end is None else (end - start) / 1000

    return Timings(
        queue=seconds(job.created_at_ms, job.started_at_ms),
        run=seconds(job.started_at_ms, job.finished_at_ms),
        first_output=seconds(job.started_at_ms, job.first_output_at_ms),
    )


def _webhook(webhook: Webhook | None) -> WebhookBody | None:
    return None if webhook is None else WebhookBody(masked(webhook.url), webhook.events)


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else timestamp(at_ms)


def _raw(text: str | None) -> Any:
    return None if text is None else msgspec.Raw(text.encode())

"""What the pipeline's routes take and give, as JSON. Instants are RFC 3339 in UTC, durations seconds."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = [
    "Accepted",
    "DatabaseStats",
    "Efficiency",
    "Point",
    "Problem",
    "ProcessLine",
    "ProcessRequest",
    "ProcessUse",
    "QueueStatus",
    "RequestStatus",
    "Series",
    "Sizing",
    "StepResult",
    "WorkerUse",
]

TEXT_LIMIT = 10_000

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_LIMIT, description="What to process.")]
RequestId = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9_.\-]{1,128}\Z",
        description="Your own name for the request: the same again is the same request, however often it is sent.",
    ),
]


class ProcessRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`POST /process`."""

    text: Text
    id: RequestId | None = None


class Accepted(msgspec.Struct, frozen=True):
    """The answer of `POST /process`: 202, the request is stored. `id` is yours if you gave one, else the job's."""

    id: str
    job_id: str
    status: str
    replayed: bool
    links: dict[str, str]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why something was refused: RFC 9457, as Ropeway's own routes tell it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    param: str | None = None


class ProcessLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one line of an NDJSON `POST /process`, in its line's place."""

    status: int
    request: Accepted | None = None
    problem: Problem | None = None


class StepResult(msgspec.Struct, frozen=True):
    """What one blocking step found, in which thread, in how many seconds."""

    found: str
    thread: str
    seconds: float


class RequestStatus(msgspec.Struct, frozen=True):
    """`GET /status/{request_id}`: all that is stored of a request; what is None has not come about.

    Attributes:
        status: queued, running, succeeded, failed, cancelled, or scheduled while it waits for its next attempt.
        created, queued: the instant it was stored; it stands in line from that moment.
        processing_time: from start to end as the engine saw it. steps_time: what the task itself measured of that.
        thread: the threads that ran its steps.
        position: requests before it in line.
    """

    id: str
    job_id: str
    text: str
    status: str
    created: str
    queued: str
    attempt: int
    worker: str | None = None
    started: str | None = None
    completed: str | None = None
    processing_time: float | None = None
    steps_time: float | None = None
    step_1: StepResult | None = None
    step_2: StepResult | None = None
    result: str | None = None
    thread: str | None = None
    error: str | None = None
    position: int | None = None


class WorkerUse(msgspec.Struct, frozen=True):
    """A worker now: requests in flight out of `slots`; `queued` is its even share of the one line."""

    name: str
    state: str
    in_flight: int
    slots: int
    queued: int


class QueueStatus(msgspec.Struct, frozen=True):
    """`GET /queue-status`. Counts of ended requests are since the store was made."""

    waiting: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    limit: int
    free: int
    oldest_waits: float | None
    threads_in_use: int | None
    workers: tuple[WorkerUse, ...]

    @property
    def finished(self) -> int:
        return self.succeeded + self.failed + self.cancelled


class DatabaseStats(msgspec.Struct, frozen=True):
    """`GET /database/stats`: what is stored, how, and how the latest requests went."""

    engine: str
    url: str
    durability: str
    version: str
    requests: int
    by_status: dict[str, int]
    retention: float | None
    size_bytes: int | None
    latest: int
    average_processing_time: float | None
    average_wait: float | None


class ProcessUse(msgspec.Struct, frozen=True):
    """A process of this machine as its kernel counts it."""

    name: str
    pid: int
    threads: int
    rss_bytes: int
    cpu_s: float


class Efficiency(msgspec.Struct, frozen=True):
    """`GET /thread-efficiency`. A request has `threads_per_request` threads while both its steps run, then one.

    Attributes:
        in_use: threads that run a step now: at most two for each request in flight, and no more than are alive.
        total: threads that the workers may have: slots x threads a request.
        alive: threads that there are, busy or idle for less than 10 s.
        percent: in_use of total. in_flight_percent: requests in flight of all slots.
        processes: workers of this machine and the gateway, where the kernel tells of them.
    """

    in_use: int
    total: int
    percent: float
    alive: int
    in_flight: int
    slots: int
    in_flight_percent: float
    threads_per_request: int
    advice: str
    processes: tuple[ProcessUse, ...]


class Point(msgspec.Struct, frozen=True):
    """One second of the time series. `processed` counts since the store was made; `workers`: in flight by name."""

    at: str
    queued: int
    queued_per_worker: float
    running: int
    active_threads: int
    processed: int
    failed: int
    workers: dict[str, int]


class Series(msgspec.Struct, frozen=True):
    """`GET /metrics/series`: oldest first, one point a second while anyone records."""

    points: tuple[Point, ...]
    kept_s: float


class Sizing(msgspec.Struct, frozen=True):
    """`GET /sizing`: how many workers and threads this machine bears for these steps, and why."""

    workers: int
    threads_per_worker: int
    concurrency: int
    requests_per_s: float
    estimated_memory_bytes: int
    thread_bytes: int
    reasons: tuple[str, ...]
    machine: tuple[str, ...]

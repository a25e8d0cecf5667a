"""The JSON shapes of what is around the jobs: queues, tasks, workers, figures, and what a gateway says of itself.

As in `wire`: times are RFC 3339 UTC, durations are seconds, and answers may grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from ropeway.client.wire import PriorityName, timestamp
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.queue import QueueChange, QueueStats
from ropeway.domain.worker import TaskCard, WorkerCard

__all__ = [
    "HealthBody",
    "InfoBody",
    "LimitsBody",
    "PolicyBody",
    "PolicyRequest",
    "PurgeBody",
    "QueueBody",
    "QueueList",
    "StatsBody",
    "TaskBody",
    "TaskDefaults",
    "TaskList",
    "WorkerBody",
    "WorkerList",
    "policy_of",
    "queue_body",
    "task_body",
    "worker_body",
]

_PRIORITIES: tuple[PriorityName, ...] = ("low", "normal", "high")


class PolicyBody(msgspec.Struct, frozen=True):
    """A queue's limits of waiting and of running jobs, and the tenants' shares."""

    max_depth: int
    max_depth_per_tenant: int | None = None
    weights: dict[str, float] = {}
    max_running: int | None = None


class PolicyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is to change of a queue's policy; what is left out stays. `null` takes a limit away."""

    max_depth: Annotated[int, msgspec.Meta(ge=1, le=10**9)] | msgspec.UnsetType = msgspec.UNSET
    max_depth_per_tenant: Annotated[int, msgspec.Meta(ge=1, le=10**9)] | msgspec.UnsetType | None = msgspec.UNSET
    weights: dict[str, Annotated[float, msgspec.Meta(gt=0, lt=1e6)]] | msgspec.UnsetType = msgspec.UNSET
    paused: bool | msgspec.UnsetType = msgspec.UNSET
    max_running: Annotated[int, msgspec.Meta(ge=1, le=10**9)] | msgspec.UnsetType | None = msgspec.UNSET

    def change(self, queue: str) -> QueueChange:
        """As an engine takes it."""
        return QueueChange(queue, *(getattr(self, name) for name in self.__struct_fields__))


class QueueBody(msgspec.Struct, frozen=True):
    """A queue now. `rate` is measured: jobs that ended in a second; `wait` is what a job submitted now may wait, in
    seconds. Both are None until they are known."""

    name: str
    paused: bool = False
    queued: int = 0
    scheduled: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    oldest_queued_at: str | None = None
    rate: float | None = None
    wait: float | None = None
    policy: PolicyBody | None = None


class QueueList(msgspec.Struct, frozen=True):
    data: list[QueueBody]


class PurgeBody(msgspec.Struct, frozen=True):
    """How many waiting jobs of a queue were cancelled. `more`: there are still some; ask again."""

    queue: str
    cancelled: int
    more: bool = False


class TaskDefaults(msgspec.Struct, frozen=True):
    """What holds for a job that does not say otherwise; durations are seconds, None is no limit."""

    timeout: float | None
    queue_timeout: float | None
    first_output_timeout: float | None
    output_timeout: float | None
    retention: float | None
    max_attempts: int
    priority: PriorityName


class TaskBody(msgspec.Struct, frozen=True):
    """A task as its callers see it. The schemas are JSON Schema 2020-12; `streams`: it yields items.

    `run` is loop, thread or process; `needs` are the labels that its workers have.
    """

    name: str
    queue: str
    streams: bool
    doc: str
    input_schema: Any
    output_schema: Any
    defaults: TaskDefaults
    run: str = "loop"
    needs: tuple[str, ...] = ()


class TaskList(msgspec.Struct, frozen=True):
    data: list[TaskBody]


class WorkerBody(msgspec.Struct, frozen=True):
    """A worker's session. It is rescued when it is silent until `expires_at`.

    `labels` tell what it may serve, `devices` what its children are pinned to, `warm` which tasks have a child ready.
    """

    name: str
    state: str
    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    slots: int
    running: int
    threads: int
    host: str
    pid: int
    started_at: str
    expires_at: str
    labels: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()


class WorkerList(msgspec.Struct, frozen=True):
    data: list[WorkerBody]


class StatsBody(msgspec.Struct, frozen=True):
    """Figures over all queues and workers. `slots` may run at once; `rate` as in `QueueBody`."""

    queued: int
    scheduled: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    oldest_queued_at: str | None
    rate: float | None
    workers: int
    slots: int
    streams: int


class LimitsBody(msgspec.Struct, frozen=True):
    """What a gateway takes at most. `file_bytes`: None when it takes no files."""

    body_bytes: int
    batch_bytes: int
    batch_lines: int
    depth: int
    wait_s: float
    file_bytes: int | None = None


class InfoBody(msgspec.Struct, frozen=True):
    """What runs here, and what a 202 of it means: `durability` is `disk`, `window` or `memory`.

    `warnings`: what an operator should know of the engine.
    """

    name: str
    version: str
    engine: str
    engine_version: str
    durability: Literal["disk", "window", "memory"]
    limits: LimitsBody
    warnings: list[str] = []


class HealthBody(msgspec.Struct, frozen=True):
    status: Literal["ok", "starting", "draining", "unavailable"]
    detail: str | None = None


def policy_of(changes: Mapping[str, Any]) -> PolicyRequest:
    """The changes, each of its kind and within its bounds. Raises InvalidRequest."""
    try:
        return msgspec.convert(dict(changes), PolicyRequest)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error).replace("`$.", "`")) from error


def queue_body(stats: QueueStats, rate: float | None = None, wait_s: float | None = None) -> QueueBody:
    """The public form of a queue's counts."""
    policy = stats.policy
    return QueueBody(
        name=stats.queue,
        paused=policy is not None and policy.paused,
        queued=stats.queued,
        scheduled=stats.scheduled,
        running=stats.running,
        succeeded=stats.succeeded,
        failed=stats.failed,
        cancelled=stats.cancelled,
        oldest_queued_at=None if stats.oldest_queued_at_ms is None else timestamp(stats.oldest_queued_at_ms),
        rate=rate,
        wait=wait_s,
        policy=None
        if policy is None
        else PolicyBody(policy.max_depth, policy.max_depth_per_tenant, dict(policy.weights), policy.max_running),
    )


def task_body(card: TaskCard) -> TaskBody:
    """The public form of a task's card."""
    options = card.options
    return TaskBody(
        name=card.name,
        queue=card.queue,
        streams=card.streams,
        doc=card.doc,
        input_schema=msgspec.Raw(card.input_schema.encode()),
        output_schema=msgspec.Raw(card.output_schema.encode()),
        defaults=TaskDefaults(
            timeout=options.timeout_s,
            queue_timeout=options.queue_timeout_s,
            first_output_timeout=options.first_output_timeout_s,
            output_timeout=options.output_timeout_s,
            retention=options.retention_s,
            max_attempts=options.retry.max_attempts,
            priority=_PRIORITIES[card.priority],
        ),
        run=card.run,
        needs=card.needs,
    )


def worker_body(card: WorkerCard) -> WorkerBody:
    """The public form of a worker's session. Its session id stays inside: whoever knows it can renew."""
    return WorkerBody(
        name=card.name,
        state=card.state,
        queues=card.queues,
        tasks=card.tasks,
        slots=card.slots,
        running=card.running,
        threads=card.threads,
        host=card.host,
        pid=card.pid,
        started_at=timestamp(card.started_at_ms),
        expires_at=timestamp(card.expires_at_ms),
        labels=card.labels,
        devices=card.devices,
        warm=card.warm,
    )

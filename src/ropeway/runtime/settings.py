"""What `@app.task(...)` takes, and the options of a job that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Required, TypedDict

from ropeway.domain.budget import ESTIMATED, Budget, declared
from ropeway.domain.cache import Cache
from ropeway.domain.job import JobOptions
from ropeway.domain.limit import TOKENS, Limit
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.domain.worker import ModelCard
from ropeway.runtime.batching.settings import Batch

__all__ = ["BatchSettings", "TaskSettings", "at_least_one", "cache_of", "options_of", "priority_of"]

SNOOZE_LIMIT = 1_000  # each one adds to the job's log; what waits for longer is a schedule


class TaskSettings(TypedDict, total=False):
    """What `@app.task(...)` takes. Durations are seconds; a job's submit may change most of them.

    name: its public name; the function's own when left out. queue: where its jobs wait; `default`.
    timeout: an attempt may run so long. queue_timeout: a job may wait so long for its first start.
    first_output_timeout: an attempt's first output must come so soon. output_timeout: the next one so soon after it.
    retry: when and how often a failed attempt is tried again. max_crashes: deaths of its worker that a job may cost.
    max_snoozes: how often `ctx.snooze` may send a job away. resumable: an attempt goes on from `ctx.partial`.
    retention, failed_retention: kept so long after its end; None is for ever.
    priority: low, normal or high. cost: what a job weighs in fair sharing between tenants; `tokens`: those it takes,
        estimated at submit and put right by what the task tells with `ctx.usage`.
    limits: how many jobs run at once and how fast they start, on all workers together; see `domain.limit` and `Budget`.
    concurrency: attempts of this task that one worker runs at once; see `runtime.slots` for the queue it needs.
    run: `loop` or `thread`, as the function itself says: `async def` runs on the loop, `def` on a thread. `process`: a
        `def` runs in a child, which can be killed; `children`, `memory_mib` and what follows say how those are kept.
    device: `gpu`: it needs a worker with devices, and its children are pinned to one each; `cpu`: they see none.
    needs: labels that its worker must have, as {"model": "llama-8b"}; those of all tasks of a queue are the same.
    models: what the task serves on the OpenAI routes, each id once in an application; see `domain.chat`.
    cache: that a submit of the same input may have an earlier result, or share in a job under way; see `Cache`.
    """

    name: str
    queue: str
    timeout: float | None
    queue_timeout: float | None
    first_output_timeout: float | None
    output_timeout: float | None
    max_snoozes: int
    resumable: bool
    retry: Retry
    priority: Priority | Literal["low", "normal", "high"]
    retention: float | None
    failed_retention: float | None
    max_crashes: int
    cost: float | Literal["tokens"]
    limits: Sequence[Limit | Budget]
    concurrency: int | None
    run: Literal["loop", "thread", "process"]
    device: Literal["cpu", "gpu"]
    needs: Mapping[str, str]
    children: int
    memory_mib: int
    data_mib: int
    max_jobs_per_child: int
    max_mib_per_child: int
    models: Sequence[ModelCard]
    cache: Cache | None


class BatchSettings(TaskSettings, total=False):
    """The same, for a function that takes the jobs of many in one call.

    batch: how they are put together; `concurrency` counts its calls then, 1 where it is left out.
    """

    batch: Required[Batch]


def priority_of(task: str, priority: Priority | str) -> Priority:
    """The priority of a setting. Raises ValueError for what is none."""
    if isinstance(priority, Priority):
        return priority
    if priority not in Priority.__members__:
        raise ValueError(f"task '{task}': priority is low, normal or high, not {priority!r}")
    return Priority[priority]


def options_of(task: str, settings: TaskSettings) -> JobOptions:
    """What a job of the task is run by that does not say otherwise. Raises ValueError, InvalidRequest."""
    base = JobOptions()
    cost = settings.get("cost")
    measured = cost == TOKENS
    return JobOptions(
        timeout_s=_above_zero(task, "timeout", settings.get("timeout")),
        queue_timeout_s=_above_zero(task, "queue_timeout", settings.get("queue_timeout")),
        first_output_timeout_s=_above_zero(task, "first_output_timeout", settings.get("first_output_timeout")),
        output_timeout_s=_above_zero(task, "output_timeout", settings.get("output_timeout")),
        max_snoozes=_snoozes(task, settings.get("max_snoozes", base.max_snoozes)),
        resumable=bool(settings.get("resumable", False)),
        retention_s=_above_zero(task, "retention", settings.get("retention", base.retention_s)),
        failed_retention_s=_above_zero(task, "failed_retention", settings.get("failed_retention")),
        retry=settings.get("retry", base.retry),
        max_crashes=at_least_one(task, "max_crashes", settings.get("max_crashes")) or base.max_crashes,
        cost=ESTIMATED if measured else _cost(task, cost) or base.cost,
        cost_measure=TOKENS if measured else None,
        limits=declared(settings.get("limits", ())),
    )


def cache_of(task: str, cache: Cache | None) -> Cache | None:
    """What the task declares. Raises TypeError for anything else."""
    if cache is not None and not isinstance(cache, Cache):
        raise TypeError(f"task '{task}': cache is a Cache, as in cache=Cache(ttl_s=3600), not {cache!r}")
    return cache


def _cost(task: str, cost: float | str | None) -> float | None:
    if isinstance(cost, str):
        raise ValueError(f"task '{task}': cost is a number above 0, or 'tokens', not {cost!r}")
    return _above_zero(task, "cost", cost)


def _snoozes(task: str, value: int) -> int:
    if not 0 <= value <= SNOOZE_LIMIT:
        raise ValueError(f"task '{task}': max_snoozes is 0 to {SNOOZE_LIMIT}, not {value!r}")
    return value


def _above_zero(task: str, name: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise ValueError(f"task '{task}': {name} must be above 0, not {value!r}")
    return None if value is None else float(value)


def at_least_one(task: str, name: str, value: int | None) -> int | None:
    """The value, if it may be. Raises ValueError."""
    if value is not None and value < 1:
        raise ValueError(f"task '{task}': {name} must be at least 1, not {value!r}")
    return value

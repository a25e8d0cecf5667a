"""Queues: their policy, and what can be counted of them."""

from __future__ import annotations

import msgspec

__all__ = ["DEFAULT_MAX_DEPTH", "QueueChange", "QueuePolicy", "QueueStats"]

DEFAULT_MAX_DEPTH = 1_000_000
"""Jobs that a queue may hold waiting before submits are answered 503, unless its policy says otherwise."""


class QueuePolicy(msgspec.Struct, frozen=True):
    """How a queue behaves.

    Attributes:
        max_depth: waiting jobs (queued and scheduled) in all; the next submit is `queue_full`.
        max_depth_per_tenant: waiting jobs of one tenant; the next is `too_many_queued`. None: no limit.
        weights: a tenant's share against the others' (1 unless named here).
        paused: a paused queue accepts jobs and leases none.
        max_running: jobs of it that run at once, on all workers. None: as many as the workers take.
    """

    queue: str
    max_depth: int = DEFAULT_MAX_DEPTH
    max_depth_per_tenant: int | None = None
    weights: dict[str, float] = {}
    paused: bool = False
    max_running: int | None = None

    def __post_init__(self) -> None:
        if self.max_depth < 1 or (self.max_depth_per_tenant is not None and self.max_depth_per_tenant < 1):
            raise ValueError("depth limits must be at least 1")
        if self.max_running is not None and self.max_running < 1:
            raise ValueError("max_running must be at least 1: pause a queue that is to lease nothing")
        if any(not 0 < weight < 1e6 for weight in self.weights.values()):
            raise ValueError("a weight must be above 0 and below 1000000")


class QueueChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change of a queue's policy; what is `UNSET` stays as it is."""

    queue: str
    max_depth: int | msgspec.UnsetType = msgspec.UNSET
    max_depth_per_tenant: int | msgspec.UnsetType | None = msgspec.UNSET
    weights: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    paused: bool | msgspec.UnsetType = msgspec.UNSET
    max_running: int | msgspec.UnsetType | None = msgspec.UNSET

    def applied_to(self, policy: QueuePolicy) -> QueuePolicy:
        """The policy after this change. Raises ValueError for limits out of range."""
        changes = {
            name: value
            for name in ("max_depth", "max_depth_per_tenant", "weights", "paused", "max_running")
            if (value := getattr(self, name)) is not msgspec.UNSET
        }
        return msgspec.structs.replace(policy, **changes)


class QueueStats(msgspec.Struct, frozen=True):
    """Counts of one queue now; `succeeded`, `failed` and `cancelled` count since the store was made.

    `oldest_queued_at_ms` is when the job that has waited longest was submitted, None when none waits.
    """

    queue: str
    queued: int = 0
    scheduled: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    oldest_queued_at_ms: int | None = None
    policy: QueuePolicy | None = None

    @property
    def waiting(self) -> int:
        return self.queued + self.scheduled

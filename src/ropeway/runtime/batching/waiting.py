"""Jobs that wait for a call, by key. Pure bookkeeping: it reads no clock and begins nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

__all__ = ["Closing", "Group", "Waiter", "Waiting"]


class Closing(StrEnum):
    """Why a batch was closed.

    `size`, `cost`: it was full. `wait`: its jobs had waited for long enough. `idle`: the queue was empty, so nobody was
    known to come. `room`: the worker had leased as much ahead as it may.
    """

    size = "size"
    cost = "cost"
    wait = "wait"
    idle = "idle"
    room = "room"


class Waiter(Protocol):
    """A job in a group, and what it costs."""

    key: Hashable
    cost: float


W = TypeVar("W", bound=Waiter)


class Group(Generic[W]):
    """Jobs of one key. `held_at` is their number when they were first kept back though nobody was known to come."""

    __slots__ = ("cost", "held_at", "jobs", "key")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.jobs: deque[W] = deque()
        self.cost = 0.0
        self.held_at = 0

    @property
    def first(self) -> W:
        return self.jobs[0]


class Waiting(Generic[W]):
    """All that wait. A key without jobs is forgotten."""

    def __init__(self, max_size: int, max_cost: float | None) -> None:
        self._max_size = max_size
        self._max_cost = max_cost
        self._groups: dict[Hashable, Group[W]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[W]:
        return iter([job for group in self._groups.values() for job in group.jobs])

    @property
    def groups(self) -> Iterable[Group[W]]:
        return self._groups.values()

    def add(self, job: W) -> Group[W]:
        """At the end of its group. Raises TypeError for a key that cannot be one (no hash)."""
        group = self._groups.get(job.key)
        if group is None:
            group = self._groups[job.key] = Group(job.key)
        group.jobs.append(job)
        group.cost += job.cost
        self._count += 1
        return group

    def remove(self, job: W) -> None:
        """One that waits no longer."""
        group = self._groups[job.key]
        group.jobs.remove(job)
        self._took(group, [job])

    def full(self, group: Group[W]) -> Closing | None:
        """Why this group has all that one call may have; None while more fits."""
        if len(group.jobs) >= self._max_size:
            return Closing.size
        if self._max_cost is not None and group.cost >= self._max_cost:
            return Closing.cost
        return None

    def take(self, group: Group[W]) -> list[W]:
        """The oldest of the group, as many as one call may have; at least one."""
        taken = [group.jobs.popleft()]
        cost = taken[0].cost
        while group.jobs and len(taken) < self._max_size and self._fits(cost + group.first.cost):
            cost += group.first.cost
            taken.append(group.jobs.popleft())
        self._took(group, taken)
        return taken

    def _fits(self, cost: float) -> bool:
        return self._max_cost is None or cost <= self._max_cost

    def _took(self, group: Group[W], jobs: list[W]) -> None:
        self._count -= len(jobs)
        group.cost = sum(job.cost for job in group.jobs)  # not by subtraction, which would leave rests of fractions
        group.held_at = 0
        if not group.jobs:
            del self._groups[group.key]

"""Seeded bugs about queues: order, shares, depths, counts, times."""

from __future__ import annotations

from typing import Any

import msgspec
from handover import HandedOver

from ropeway.domain.change import promoted
from ropeway.domain.clock import Clock
from ropeway.domain.errors import QueueFull, TooManyQueued
from ropeway.domain.ids import RandomBytes
from ropeway.domain.job import NewJob
from ropeway.domain.lease import Assignment, LeaseRequest
from ropeway.domain.lifecycle import State
from ropeway.domain.rank import Priority
from ropeway.engines.base import Promotion
from ropeway.engines.memory.line import Line
from ropeway.engines.memory.store import Store

__all__ = [
    "CountersDrift",
    "DepthOffByOne",
    "EndedCountsTakenBack",
    "LeasesByAge",
    "LimitOfTheBatchBefore",
    "NextTimeForgotten",
    "OwnLimitForAll",
    "PauseIgnored",
    "PositionIncludesItself",
    "PrioritiesIgnored",
    "PromotesEarly",
    "QueueTimeoutOnlyAtUpkeep",
    "TagsForgetWhatWasServed",
    "WeightsUpsideDown",
    "WithLine",
]


class WithLine(HandedOver):
    """A memory engine with a line of another kind."""

    line: type[Line] = Line

    def __init__(self, clock: Clock, random: RandomBytes) -> None:
        super().__init__(clock, random)
        self._store = _StoreOf(self.line)


class _StoreOf(Store):
    def __init__(self, line: type[Line]) -> None:
        super().__init__()
        self._line = line

    def line(self, queue: str) -> Line:
        if queue not in self.lines:
            self.lines[queue] = self._line(queue)
        return self.lines[queue]


class LeasesByAge(WithLine):
    """Jobs are leased by the time of their submit, whatever their rank."""

    class line(Line):  # noqa: N801 (it is the attribute above)
        def push(self, rank: float, number: int, job_id: str) -> None:
            super().push(0.0, number, job_id)


class PrioritiesIgnored(WithLine):
    """All priorities share one band."""

    class line(Line):  # noqa: N801
        def rank(self, job: NewJob) -> float:
            return super().rank(msgspec.structs.replace(job, priority=Priority.normal))


class TagsForgetWhatWasServed(WithLine):
    """A tenant's tag is not moved on: who submits most gets most."""

    class line(Line):  # noqa: N801
        def rank(self, job: NewJob) -> float:
            self._last_finish.clear()
            return super().rank(job)


class WeightsUpsideDown(WithLine):
    """A share is multiplied where it should divide."""

    class line(Line):  # noqa: N801
        def rank(self, job: NewJob) -> float:
            policy = self.policy
            turned = {tenant: 1 / weight for tenant, weight in policy.weights.items()}
            self.policy = msgspec.structs.replace(policy, weights=turned)
            rank = super().rank(job)
            self.policy = policy
            return rank


class DepthOffByOne(WithLine):
    """`>` for `>=`: one job more than the queue may hold."""

    class line(Line):  # noqa: N801
        def refusal(self, job: NewJob) -> QueueFull | TooManyQueued | None:
            refusal = super().refusal(job)
            return None if isinstance(refusal, QueueFull) and refusal.depth == self.policy.max_depth else refusal


class OwnLimitForAll(WithLine):
    """A tenant's limit is held against what all tenants have waiting."""

    class line(Line):  # noqa: N801
        def refusal(self, job: NewJob) -> QueueFull | TooManyQueued | None:
            limit = self.policy.max_depth_per_tenant
            return TooManyQueued(job.queue, self.depth) if limit and self.depth >= limit else super().refusal(job)


class CountersDrift(WithLine):
    """A scheduled job that is cancelled stays counted as waiting."""

    class line(Line):  # noqa: N801
        def count(self, tenant: str, old: State | None, new: State) -> None:
            if not (old is State.scheduled and new is State.cancelled):
                super().count(tenant, old, new)


class PositionIncludesItself(WithLine):
    """A position counts the job itself."""

    class line(Line):  # noqa: N801
        def ahead_of(self, rank: float, number: int, is_queued: Any, limit: int) -> int | None:
            ahead = super().ahead_of(rank, number, is_queued, limit)
            return None if ahead is None else ahead + 1


class LimitOfTheBatchBefore(HandedOver):
    """Depth is asked once for a batch, so that a large batch goes past every limit."""

    async def submit(self, jobs: Any) -> Any:
        refused = {new.queue: self._store.line(new.queue).refusal(new) for new in jobs}
        kept = {queue: self._store.policy(queue) for queue in refused}
        for queue, policy in kept.items():
            if refused[queue] is None:
                open_ = msgspec.structs.replace(policy, max_depth=10**6, max_depth_per_tenant=None)
                self._store.line(queue).policy = open_
        answers = await super().submit(jobs)
        for queue, policy in kept.items():
            self._store.line(queue).policy = policy
        return answers


class EndedCountsTakenBack(HandedOver):
    """A purge takes the job out of the count of those that ended."""

    async def purge(self, tenant: str, job_ids: Any) -> Any:
        ended = [self._store.owned(tenant, job_id) for job_id in job_ids]
        answers = await super().purge(tenant, job_ids)
        for job, answer in zip(ended, answers, strict=True):
            if job is not None and answer is None:
                self._store.line(job.queue)._counts[job.tenant, job.state] -= 1
        return answers


class PauseIgnored(HandedOver):
    """A paused queue is leased from all the same."""

    async def lease(self, request: LeaseRequest) -> list[Assignment]:
        policies = {name: line.policy for name, line in self._store.lines.items()}
        for line in self._store.lines.values():
            line.policy = msgspec.structs.replace(line.policy, paused=False)
        leased = await super().lease(request)
        for name, policy in policies.items():
            self._store.lines[name].policy = policy
        return leased


class PromotesEarly(HandedOver):
    """Promotion looks a little ahead, so as not to come late."""

    async def promote(self, limit: int) -> Promotion:
        for job in tuple(self._store.jobs.values()):
            if job.state is State.scheduled and (job.run_at_ms or 0) - 200 <= self._now():
                self._store.apply(job, promoted(job), self._now())
        return await super().promote(limit)


class QueueTimeoutOnlyAtUpkeep(HandedOver):
    """A lease does not look at queue deadlines, as upkeep will."""

    async def lease(self, request: LeaseRequest) -> list[Assignment]:
        waiting = {job.id: job for job in self._store.jobs.values() if job.state is State.queued}
        for job in waiting.values():
            self._store.jobs[job.id] = msgspec.structs.replace(job, queue_deadline_ms=None)
        leased = await super().lease(request)
        for job_id, job in waiting.items():
            if self._store.jobs[job_id].state is State.queued:
                self._store.jobs[job_id] = job
        return leased


class NextTimeForgotten(HandedOver):
    """A promotion that moved something tells no next time."""

    async def promote(self, limit: int) -> Promotion:
        promotion = await super().promote(limit)
        return Promotion(promotion.moved, None) if promotion.moved else promotion

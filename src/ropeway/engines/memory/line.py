"""One queue of the memory engine: its order, its policy and its counts."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable

from ropeway.domain.errors import QueueFull, TooManyQueued
from ropeway.domain.job import NewJob
from ropeway.domain.lifecycle import WAITING, State
from ropeway.domain.queue import QueuePolicy, QueueStats
from ropeway.domain.rank import BAND_WIDTH, Priority, place, rank_of, start_of

__all__ = ["Line"]


class Line:
    """A queue: a heap by rank whose cancelled entries are dropped when met, and start-time fair queueing's tags."""

    def __init__(self, name: str) -> None:
        self.policy = QueuePolicy(name)
        self.depth = 0  # jobs that wait, queued and scheduled
        self._own_depth: Counter[str] = Counter()
        self._counts: Counter[tuple[str, State]] = Counter()
        self._heap: list[tuple[float, int, str]] = []
        self._virtual_time: dict[Priority, float] = {}
        self._last_finish: dict[tuple[Priority, str], float] = {}

    def refusal(self, job: NewJob) -> QueueFull | TooManyQueued | None:
        """Why this queue cannot take the job now."""
        own = self._own_depth[job.tenant]
        if any(limit is not None and own >= limit for limit in (self.policy.max_depth_per_tenant, job.max_own)):
            return TooManyQueued(job.queue, own)
        if self.depth >= self.policy.max_depth:
            return QueueFull(job.queue, self.depth)
        return None

    def rank(self, job: NewJob) -> float:
        """The new job's place, moving its tenant's tag on."""
        flow = (job.priority, job.tenant)
        weight = self.policy.weights.get(job.tenant, 1.0)
        virtual = self._virtual_time.get(job.priority, 0.0)
        start, self._last_finish[flow] = place(virtual, self._last_finish.get(flow, 0.0), job.options.cost, weight)
        return rank_of(job.priority, start)

    def count(self, tenant: str, old: State | None, new: State) -> None:
        """A job of this queue went from one state to another; it came from outside when `old` is None."""
        for state, step in ((old, -1), (new, +1)):
            if state is not None:
                self._counts[tenant, state] += step
                if state in WAITING:
                    self.depth += step
                    self._own_depth[tenant] += step

    def push(self, rank: float, number: int, job_id: str) -> None:
        heapq.heappush(self._heap, (rank, number, job_id))

    def pop(self, is_queued: Callable[[str, int], bool]) -> str | None:
        """The best-ranked job that is still queued, out of the heap."""
        while self._heap:
            _, number, job_id = heapq.heappop(self._heap)
            if is_queued(job_id, number):
                return job_id
        return None

    def advance(self, rank: float) -> None:
        """Virtual time moves to the start tag of a job that was leased."""
        band = Priority(Priority.high - int(rank // BAND_WIDTH))
        self._virtual_time[band] = max(self._virtual_time.get(band, 0.0), start_of(rank))

    def ahead_of(self, rank: float, number: int, is_queued: Callable[[str, int], bool], limit: int) -> int | None:
        """How many queued jobs go before the one of this rank and number; None when more than `limit`."""
        place = (rank, number, "")
        ahead = sum(is_queued(entry[2], entry[1]) for entry in self._heap if entry < place)
        return None if ahead > limit else ahead

    def forget_idle_flows(self) -> None:
        """Drop tags that virtual time has passed: a tenant without one starts at virtual time all the same."""
        idle = [flow for flow, tag in self._last_finish.items() if tag <= self._virtual_time.get(flow[0], 0.0)]
        for flow in idle:
            del self._last_finish[flow]

    def stats(self, tenant: str | None, oldest: int | None) -> QueueStats:
        def count(state: State) -> int:
            mine = (n for (owner, held), n in self._counts.items() if held is state and tenant in (None, owner))
            return sum(mine)

        return QueueStats(
            self.policy.queue,
            oldest_queued_at_ms=oldest,
            policy=self.policy,
            **{state.value: count(state) for state in State},
        )

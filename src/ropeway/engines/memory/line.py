"""One queue of the memory engine: its order, its policy and its counts."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable

from ropeway.domain.errors import QueueFull, TooManyQueued
from ropeway.domain.job import Job, NewJob
from ropeway.domain.lifecycle import WAITING, State
from ropeway.domain.queue import QueuePolicy, QueueStats
from ropeway.domain.rank import (
    Priority,
    band_of,
    corrected,
    goes_before,
    next_band,
    passed_over,
    place,
    rank_of,
    start_of,
)

__all__ = ["Line"]


class Line:
    """A queue: a heap by rank for each band, whose cancelled entries are dropped when met, and fair queueing's tags."""

    def __init__(self, name: str) -> None:
        self.policy = QueuePolicy(name)
        self.depth = 0  # jobs that wait, queued and scheduled
        self._own_depth: Counter[str] = Counter()
        self._counts: Counter[tuple[str, State]] = Counter()
        self._heaps: dict[Priority, list[tuple[float, int, str]]] = {band: [] for band in reversed(Priority)}
        self._passed: dict[Priority, int] = {}
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

    def room(self, wanted: int) -> int:
        """How many of so many jobs may start, as far as the queue's own limit goes."""
        most = self.policy.max_running
        if most is None:
            return wanted
        running = sum(count for (_, state), count in self._counts.items() if state is State.running)
        return max(min(wanted, most - running), 0)

    def push(self, rank: float, number: int, job_id: str) -> None:
        heapq.heappush(self._heaps[band_of(rank)], (rank, number, job_id))

    def pop(self, is_queued: Callable[[str, int], bool]) -> str | None:
        """The job whose turn it is, of those still queued, out of its heap."""
        heaps = [heap for heap in self._heaps.values() if heap]
        if len(heaps) > 1:
            waiting = self._waiting(is_queued)
            heaps = [self._heaps[next_band(waiting, self._passed)]] if waiting else []
        for heap in heaps:
            while heap:
                _, number, job_id = heapq.heappop(heap)
                if is_queued(job_id, number):
                    return job_id
        return None

    def leased(self, rank: float, is_queued: Callable[[str, int], bool]) -> None:
        """A job that was popped is leased: virtual time moves to its start tag, and other bands were passed over."""
        band = band_of(rank)
        self._virtual_time[band] = max(self._virtual_time.get(band, 0.0), start_of(rank))
        if self._passed or sum(map(bool, self._heaps.values())) > (1 if self._heaps[band] else 0):
            waiting = sorted({band, *self._waiting(is_queued)}, reverse=True)
            self._passed = passed_over(waiting, self._passed, band)

    def correct(self, job: Job, owed: float) -> None:
        """A job took so much more, or less, than its cost: its tenant's tag moves."""
        flow = (job.priority, job.tenant)
        weight = self.policy.weights.get(job.tenant, 1.0)
        virtual = self._virtual_time.get(job.priority, 0.0)
        self._last_finish[flow] = corrected(virtual, self._last_finish.get(flow, 0.0), owed, weight)

    def ahead_of(self, rank: float, number: int, is_queued: Callable[[str, int], bool], limit: int) -> int | None:
        """How many queued jobs go before the one of this rank and number; None when more than `limit`."""
        band = band_of(rank)
        same = sum(is_queued(*entry[:0:-1]) for entry in self._heaps[band] if entry < (rank, number, ""))
        higher = sum(is_queued(*entry[:0:-1]) for over in Priority if over > band for entry in self._heaps[over])
        ahead = goes_before(same, higher, self._passed.get(band, 0))
        return None if ahead > limit else ahead

    def _waiting(self, is_queued: Callable[[str, int], bool]) -> list[Priority]:
        """The bands in which jobs wait, the highest first; entries of those that no longer do are dropped."""
        for heap in self._heaps.values():
            while heap and not is_queued(*heap[0][:0:-1]):
                heapq.heappop(heap)
        return [band for band, heap in self._heaps.items() if heap]

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

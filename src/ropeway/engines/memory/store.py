"""What the memory engine holds: jobs with their events, queues, sessions, claims; and the one way to change a job."""

from __future__ import annotations

import heapq
import itertools
from datetime import date, timedelta
from typing import Any

import msgspec

from ropeway.domain.bucket import Level
from ropeway.domain.change import Change, called, parked
from ropeway.domain.event import (
    OUTPUT_DELTA,
    PROGRESS,
    USAGE,
    Cursor,
    Event,
)
from ropeway.domain.job import Job, NewJob, job_of
from ropeway.domain.lifecycle import WAITING, State
from ropeway.domain.queue import QueuePolicy
from ropeway.domain.record import Record, RecordKey
from ropeway.domain.usage import KEPT_DAYS, UsageRow, day_of
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.hints import Board
from ropeway.engines.memory.limits import Limits, Place
from ropeway.engines.memory.line import Line

__all__ = ["Claim", "Session", "Store"]


class Claim(msgspec.Struct, frozen=True):
    """A key's claim: which job it made. An idempotency key's tells from which body, a cache's how long it serves."""

    job_id: str
    fingerprint: str
    expires_at_ms: int
    ttl_ms: int = 0


class Session:
    """A worker's session and the jobs that it runs."""

    __slots__ = ("card", "expires_at_ms", "held")

    def __init__(self, card: WorkerCard, expires_at_ms: int) -> None:
        self.card = card
        self.expires_at_ms = expires_at_ms
        self.held: set[str] = set()


class Store:
    """Dicts and heaps. `apply` is the only writer of a job's state: it counts and hints."""

    def __init__(self) -> None:
        self.board = Board()
        self.jobs: dict[str, Job] = {}
        self.events: dict[str, list[Event]] = {}
        self.lines: dict[str, Line] = {}
        self.sessions: dict[str, Session] = {}
        self.claims: dict[tuple[str, str], Claim] = {}
        self.catalogue: dict[str, TaskCard] = {}
        self.duties: dict[str, tuple[str, int]] = {}
        self.records: dict[RecordKey, Record] = {}
        self.record_ids: dict[tuple[str, str], set[str]] = {}  # by kind and tenant
        self.buckets: dict[str, Level] = {}
        self.usage: dict[tuple[str, date, str], UsageRow] = {}
        self.limits = Limits(self.jobs.__getitem__, self._call, lambda: self.board.fire(("upkeep",)))
        self.due: list[tuple[int, str]] = []  # scheduled jobs by time, and queued ones by queue deadline
        self.expiring: list[tuple[int, str]] = []  # terminal jobs by retention
        self._numbers: dict[str, int] = {}
        self._counter = itertools.count(1)

    def line(self, queue: str) -> Line:
        line = self.lines.get(queue)
        if line is None:
            line = self.lines[queue] = Line(queue)
        return line

    def policy(self, queue: str) -> QueuePolicy:
        """A queue's policy; the default one of a queue that is not there yet."""
        line = self.lines.get(queue)
        return QueuePolicy(queue) if line is None else line.policy

    def owned(self, tenant: str, job_id: str) -> Job | None:
        """The job, if it is this tenant's."""
        job = self.jobs.get(job_id)
        return job if job is not None and job.tenant == tenant else None

    def number(self, job_id: str) -> int:
        """The order in which the job was submitted."""
        return self._numbers[job_id]

    def is_queued(self, job_id: str, number: int) -> bool:
        """Whether the job of this id and number waits in its line: an id may be used again after a purge."""
        job = self.jobs.get(job_id)
        return job is not None and job.state is State.queued and job.parked is None and self._numbers[job_id] == number

    def place(self, job: Job) -> Place:
        """Where the job stands among others of its queue, or of its limit's key."""
        return job.rank, self._numbers[job.id], job.id

    def blocked(self, job: Job, now_ms: int) -> bool:
        """Park a queued job that is out of its line, if it does not fit its limits now."""
        key = self.limits.blocking(job, self.place(job), now_ms)
        if key is None:
            return False
        self.apply(job, parked(job, key), now_ms)
        self.limits.park(key, self.place(job))
        return True

    def _call(self, job: Job, now_ms: int) -> None:
        """A parked job may try again."""
        self._line_up(self.apply(job, called(job), now_ms))

    def add(self, new: NewJob, now_ms: int) -> Job:
        """Store a new job, ranked."""
        line = self.line(new.queue)
        job = job_of(new, line.rank(new), now_ms)
        self.jobs[job.id] = job
        self._numbers[job.id] = next(self._counter)
        line.count(job.tenant, None, job.state)
        self._settle(job)
        return job

    def apply(self, old: Job, change: Change, now_ms: int) -> Job:
        """Write what became of a job: the only writer of a job's state. It counts and hints."""
        job = change.job
        if change.events:
            log = self.events.setdefault(job.id, [])
            log += change.events
            log.sort(key=lambda event: event.cursor)
        self.jobs[job.id] = job
        if job.state is old.state:
            self.board.fire((f"job:{job.id}",))
            return job
        self.line(job.queue).count(job.tenant, old.state, job.state)
        if job.options.limits:
            self._limit(old, change, now_ms)
        if change.owed:
            self.line(job.queue).correct(job, change.owed)
        if old.state is State.running and self.line(job.queue).policy.max_running is not None:
            self.board.fire((f"queue:{job.queue}",))
        if old.state is State.running and old.session is not None and old.session in self.sessions:
            self.sessions[old.session].held.discard(job.id)
        self._settle(job)
        if change.delivery is not None and change.delivery.id not in self.jobs:
            self.add(change.delivery, job.finished_at_ms or 0)
        return job

    def write(self, job: Job, drafts: tuple[tuple[str, str], ...], now_ms: int) -> Job:
        """Add events to a running job's log, and to its row what they tell."""
        log = self.events.setdefault(job.id, [])
        changes: dict[str, Any] = {}
        for n, (type_, data) in enumerate(drafts, job.seq):
            log.append(Event(Cursor(job.epoch, n), type_, job.id, job.attempt, now_ms, data))
            if type_ == PROGRESS:
                changes["progress"] = data
            elif type_ == USAGE:
                changes["usage"] = data
            elif type_ == OUTPUT_DELTA and job.first_output_at_ms is None:
                changes["first_output_at_ms"] = now_ms
        job = msgspec.structs.replace(job, seq=job.seq + len(drafts), version=job.version + 1, **changes)
        self.jobs[job.id] = job
        self.board.fire((f"job:{job.id}",))
        return job

    def use(self, job: Job, amounts: dict[str, float], now_ms: int) -> None:
        """Add what an attempt used to the account of today."""
        if amounts:
            self._account(job, amounts, int(job.state.terminal), now_ms)

    def count(self, job: Job, name: str, now_ms: int) -> None:
        """Count one of these in the account of today."""
        self._account(job, {name: 1}, 0, now_ms)

    def _account(self, job: Job, amounts: dict[str, float], jobs: int, now_ms: int) -> None:
        day = day_of(now_ms)
        row = self.usage.get((job.tenant, day, job.task)) or UsageRow(job.tenant, day, job.task)
        sums = {name: row.amounts.get(name, 0) + amounts.get(name, 0) for name in sorted({*row.amounts, *amounts})}
        self.usage[job.tenant, day, job.task] = msgspec.structs.replace(row, jobs=row.jobs + jobs, amounts=sums)

    def remove(self, job: Job) -> None:
        """Forget a terminal job and its events. It stays counted: ended jobs are counted since the store was made."""
        del self.jobs[job.id], self._numbers[job.id]
        self.events.pop(job.id, None)
        self.board.fire((f"job:{job.id}", f"end:{job.id}"))

    def keep_record(self, record: Record) -> None:
        """Write a record, whole."""
        self.records[record.key] = record
        self.record_ids.setdefault((record.key.kind, record.key.tenant), set()).add(record.key.id)

    def drop_record(self, key: RecordKey) -> bool:
        """Forget a record that is there."""
        del self.records[key]
        ids = self.record_ids[key.kind, key.tenant]
        ids.discard(key.id)
        if not ids:
            del self.record_ids[key.kind, key.tenant]
        return True

    def forget_past(self, now_ms: int) -> None:
        """Forget the records that have expired, the buckets that are full, and the accounts of long ago."""
        oldest = day_of(now_ms) - timedelta(KEPT_DAYS)
        for account in [account for account in self.usage if account[1] < oldest]:
            del self.usage[account]
        for key in [key for key, record in self.records.items() if not record.lives_at(now_ms)]:
            self.drop_record(key)
        for name in [name for name, bucket in self.buckets.items() if bucket.full_at_ms <= now_ms]:
            del self.buckets[name]

    def pop_due(self, heap: list[tuple[int, str]], now_ms: int) -> str | None:
        return heapq.heappop(heap)[1] if heap and heap[0][0] <= now_ms else None

    def next_due_ms(self) -> int | None:
        """The earliest time that a waiting job waits for; entries of those that no longer do are dropped."""
        while self.due:
            at_ms, job_id = self.due[0]
            job = self.jobs.get(job_id)
            if job is not None and job.state in WAITING and at_ms in (job.run_at_ms, job.queue_deadline_ms):
                return at_ms
            heapq.heappop(self.due)
        return None

    def _settle(self, job: Job) -> None:
        """Put a job where its state will have it found, and tell who waits for it."""
        self.board.fire((f"job:{job.id}", "lifecycle"))
        if job.state.terminal:
            self.board.fire((f"end:{job.id}",))
        if job.state is State.queued:
            self._line_up(job)
        if job.state in WAITING:
            self._await_times(job)
        elif job.expires_at_ms is not None:
            heapq.heappush(self.expiring, (job.expires_at_ms, job.id))

    def _line_up(self, job: Job) -> None:
        self.line(job.queue).push(*self.place(job))
        self.board.fire((f"queue:{job.queue}",))

    def _limit(self, old: Job, change: Change, now_ms: int) -> None:
        """What a change of state does to the limits that the job runs under."""
        job = change.job
        if job.state is State.running:
            self.limits.start(job, now_ms)
        elif old.state is State.running:
            self.limits.finish(job, job.last_outcome or "lost", change.used, now_ms)
        elif old.parked is not None:
            self.limits.leave(old, self.place(old))

    def _await_times(self, job: Job) -> None:
        for at_ms in (job.run_at_ms, job.queue_deadline_ms):
            if at_ms is not None:
                heapq.heappush(self.due, (at_ms, job.id))
                self.board.fire(("upkeep",))

"""What workers do: sessions, leases, events, commits, and the rescue of what a worker left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ropeway.domain.change import Change, committed, repeated
from ropeway.domain.errors import (
    LeaseLost,
)
from ropeway.domain.event import Cursor
from ropeway.domain.ids import lease_token
from ropeway.domain.job import Job
from ropeway.domain.lease import (
    Append,
    Appended,
    Assignment,
    Commit,
    Lease,
    LeaseRequest,
    Outcome,
    Renewal,
    next_epoch,
)
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import PARKED_AT_ONCE, LimitSignal
from ropeway.domain.log import opening_count
from ropeway.domain.usage import amounts_of
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.memory.base import Role
from ropeway.engines.memory.line import Line
from ropeway.engines.memory.store import Session

__all__ = ["ExecutionRole"]


class ExecutionRole(Role):
    """Attempts, from lease to commit, every write of them fenced."""

    async def publish(self, tasks: Sequence[TaskCard]) -> None:
        self._now()
        self._store.catalogue.update((task.name, task) for task in tasks)

    async def announce(self, worker: WorkerCard) -> None:
        now = self._now()
        session = self._store.sessions.get(worker.session)
        if session is None:
            session = self._store.sessions[worker.session] = Session(worker, now)
            started = now
        else:
            started = session.card.started_at_ms
        session.expires_at_ms = now + worker.ttl_ms
        session.card = msgspec.structs.replace(worker, started_at_ms=started)

    async def lease(self, request: LeaseRequest) -> list[Assignment]:
        now = self._now()
        session = self._store.sessions.get(request.session)
        if session is None or session.expires_at_ms <= now:
            return []
        leased: list[Assignment] = []
        for queue in request.queues:
            line = self._store.lines.get(queue)
            if line is not None and not line.policy.paused:
                wanted = line.room(request.limit - len(leased))
                leased += [self._assign(job, session, request, now) for job in self._taken(line, wanted, now)]
        return leased

    def _taken(self, line: Line, wanted: int, now: int) -> Iterator[Job]:
        """The next jobs of a line that may start; the others fail, or are parked."""
        parked = 0
        while wanted > 0 and (job_id := line.pop(self._store.is_queued)) is not None:
            job = self._store.jobs[job_id]
            if self._expire(job, now):
                continue
            if self._store.blocked(job, now):
                parked += 1
                if parked == PARKED_AT_ONCE:
                    self._store.board.fire((f"queue:{job.queue}",))
                    return
                continue
            wanted -= 1
            yield job
            line.leased(job.rank, self._store.is_queued)

    async def renew(self, session: str, ttl_ms: int) -> Renewal:
        return self.renew_now(session, ttl_ms)

    def renew_now(self, session: str, ttl_ms: int) -> Renewal:
        """`renew` for a thread outside the loop: two dict reads and one attribute write, each atomic."""
        now = self._now()
        held = self._store.sessions.get(session)
        if held is None:
            return Renewal(False)
        held.expires_at_ms = now + ttl_ms
        jobs = [self._store.jobs.get(job_id) for job_id in tuple(held.held)]
        return Renewal(True, tuple(job.id for job in jobs if job and job.cancel_requested_at_ms is not None))

    async def signal(self, signals: Sequence[LimitSignal]) -> None:
        now = self._now()
        for signal in signals:
            self._store.limits.signal(signal, now)

    async def append(self, batch: Sequence[Append]) -> list[Appended | LeaseLost]:
        now = self._now()
        return [self._append(append, now) for append in batch]

    async def commit(self, batch: Sequence[Commit]) -> list[State | LeaseLost]:
        now = self._now()
        states = [self._commit(commit.lease, commit.outcome, now) for commit in batch]
        self._store.limits.call_freed(now)
        return states

    def _assign(self, job: Job, session: Session, request: LeaseRequest, now: int) -> Assignment:
        epoch = next_epoch(job.epoch, now)
        running = msgspec.structs.replace(
            job,
            state=State.running,
            version=job.version + 1,
            attempt=job.attempt + 1,
            runs=job.runs + 1,
            epoch=epoch,
            seq=opening_count(job.runs + 1),
            started_epoch=epoch,
            started_at_ms=now,
            queue_deadline_ms=None,
            run_at_ms=None,
            worker=request.worker,
            session=request.session,
            token=lease_token(self._random),
            last_outcome=None,
            progress=None,
        )
        job = self._store.apply(job, Change(running), now)
        session.held.add(job.id)
        return Assignment(
            lease=Lease(job.id, epoch, job.token or ""),
            tenant=job.tenant,
            queue=job.queue,
            task=job.task,
            input=job.input,
            attempt=job.attempt,
            crashes=job.crashes,
            next_seq=job.seq,
            created_at_ms=job.created_at_ms,
            started_at_ms=now,
            options=job.options,
        )

    def _held(self, lease: Lease) -> Job | None:
        """The job, if this lease still holds it: the fence of every write."""
        job = self._store.jobs.get(lease.job_id)
        holds = job is not None and job.state is State.running and job.token == lease.token
        return job if holds else None

    def _append(self, append: Append, now: int) -> Appended | LeaseLost:
        job = self._held(append.lease)
        if job is None:
            return LeaseLost()
        if append.expected_seq == job.seq:
            job = self._store.write(job, append.drafts, now)
        elif not self._is_repeat(job, append):
            return LeaseLost(f"event {append.expected_seq} of {job.id} is not the next: that is {job.seq}")
        return Appended(job.seq, job.cancel_requested_at_ms is not None)

    def _is_repeat(self, job: Job, append: Append) -> bool:
        """Whether these very events are written already: the reply to them was lost."""
        first = append.expected_seq
        wanted = [(Cursor(job.epoch, n), *draft) for n, draft in enumerate(append.drafts, first)]
        log = self._store.events.get(job.id, ())
        written = [(event.cursor, event.type, event.data) for event in log if event.cursor >= Cursor(job.epoch, first)]
        return bool(wanted) and written[: len(wanted)] == wanted

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        job = self._held(lease)
        if job is None:
            return repeated(self._store.jobs.get(lease.job_id), lease, outcome)
        change = committed(job, outcome, now)
        after = self._store.apply(job, change, now)
        self._store.use(after, amounts_of(change.used), now)
        return after.state

"""The protocol over `Store`, method by method. Nothing here awaits, so every method is one atomic step."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.errors import (
    EngineUnavailable,
    IdempotencyKeyReused,
    JobError,
    JobLive,
    JobNotFound,
    JobNotRetryable,
    LeaseLost,
)
from ropeway.domain.event import Cursor
from ropeway.domain.ids import RandomBytes, lease_token, system_random
from ropeway.domain.job import Job, JobQuery, NewJob, Receipt
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
from ropeway.domain.log import EventPage, opening_count, page
from ropeway.domain.queue import QueueChange, QueuePolicy, QueueStats
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import EngineInfo, JobPage, Promotion, Refusal, Renewer
from ropeway.engines.hints import Listener
from ropeway.engines.memory.store import CLAIM_MS, Claim, Session, Store

__all__ = ["MemoryEngine"]

_ENDS = {"succeeded": State.succeeded, "failed": State.failed, "cancelled": State.cancelled}
_WORKER_LOST = JobError("worker_lost", "the worker that ran this job was lost")


class MemoryEngine:
    """Jobs that live as long as this process. Durability class `memory`."""

    def __init__(self, clock: Clock | None = None, random: RandomBytes = system_random) -> None:
        self._clock = clock or SystemClock()
        self._random = random
        self._store = Store()
        self._is_open = False
        self.info = EngineInfo("memory", "memory:", "memory", "1")

    async def open(self) -> None:
        self._is_open = True

    async def shut(self) -> None:
        self._is_open = False

    # -- Submission

    async def submit(self, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
        now = self._now()
        return [self._submit(job, now) for job in jobs]

    async def cancel(self, tenant: str, job_ids: Sequence[str], reason: str | None) -> list[Job | JobNotFound]:
        now = self._now()
        return [self._cancel(tenant, job_id, reason, now) for job_id in job_ids]

    async def retry(
        self, tenant: str, jobs: Sequence[tuple[str, str]]
    ) -> list[Receipt | JobNotFound | JobNotRetryable | Refusal]:
        now = self._now()
        return [self._retry(tenant, job_id, new_id, now) for job_id, new_id in jobs]

    async def purge(self, tenant: str, job_ids: Sequence[str]) -> list[JobNotFound | JobLive | None]:
        self._now()
        return [self._purge(tenant, job_id) for job_id in job_ids]

    async def set_queue(self, changes: Sequence[QueueChange]) -> list[QueuePolicy]:
        self._now()
        for change in changes:
            line = self._store.line(change.queue)
            line.policy = change.applied_to(line.policy)
            self._store.board.fire((f"queue:{change.queue}",))
        return [self._store.line(change.queue).policy for change in changes]

    def _submit(self, new: NewJob, now: int) -> Receipt | Refusal:
        earlier = self._claimed(new)
        if earlier is not None:
            return earlier
        line = self._store.line(new.queue)
        refusal = line.refusal(new)
        if refusal is not None:
            return refusal
        job = self._store.add(new, now)
        if new.idempotency_key is not None:
            claim = Claim(job.id, new.fingerprint, now + CLAIM_MS)
            self._store.claims[new.tenant, new.idempotency_key] = claim
        return Receipt(job, depth=line.depth)

    def _claimed(self, new: NewJob) -> Receipt | IdempotencyKeyReused | None:
        """The answer when this id, or this idempotency key, was submitted before."""
        known = self._store.jobs.get(new.id)
        if known is None and new.idempotency_key is not None:
            claim = self._store.claims.get((new.tenant, new.idempotency_key))
            if claim is None:
                return None
            if claim.fingerprint != new.fingerprint:
                return IdempotencyKeyReused()
            known = self._store.jobs.get(claim.job_id)
            if known is None:
                return IdempotencyKeyReused("the job that this idempotency key made is gone")
        if known is None:
            return None
        if known.tenant != new.tenant:
            return IdempotencyKeyReused("this job id is taken")
        return Receipt(known, replayed=True, depth=self._store.line(known.queue).depth)

    def _cancel(self, tenant: str, job_id: str, reason: str | None, now: int) -> Job | JobNotFound:
        job = self._store.owned(tenant, job_id)
        if job is None:
            return JobNotFound()
        if job.state.terminal or job.cancel_requested_at_ms is not None:
            return job
        asked = msgspec.structs.replace(job, cancel_requested_at_ms=now, cancel_reason=reason)
        if job.state is not State.running:
            return self._store.finish(asked, State.cancelled, now)
        asked = msgspec.structs.replace(asked, version=job.version + 1)
        self._store.jobs[job_id] = asked
        self._store.board.fire((f"job:{job_id}", f"worker:{job.session}"))
        return asked

    def _retry(
        self, tenant: str, job_id: str, new_id: str, now: int
    ) -> Receipt | JobNotFound | JobNotRetryable | Refusal:
        job = self._store.owned(tenant, job_id)
        if job is None:
            return JobNotFound()
        if not job.state.terminal:
            return JobNotRetryable(f"{job_id} is {job.state}; only a job that has ended can be retried")
        again = NewJob(
            new_id, tenant, job.queue, job.task, job.input, job.priority, options=job.options, retry_of=job_id
        )
        return self._submit(again, now)

    def _purge(self, tenant: str, job_id: str) -> JobNotFound | JobLive | None:
        job = self._store.owned(tenant, job_id)
        if job is None:
            return JobNotFound()
        if not job.state.terminal:
            return JobLive(f"{job_id} is {job.state}; cancel it first")
        self._store.remove(job)
        return None

    # -- Execution

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
            if line is None or line.policy.paused:
                continue
            while len(leased) < request.limit and (job_id := line.pop(self._store.is_queued)) is not None:
                job = self._store.jobs[job_id]
                if not self._expire(job, now):
                    leased.append(self._assign(job, session, request, now))
        return leased

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

    async def append(self, batch: Sequence[Append]) -> list[Appended | LeaseLost]:
        now = self._now()
        return [self._append(append, now) for append in batch]

    async def commit(self, batch: Sequence[Commit]) -> list[State | LeaseLost]:
        now = self._now()
        return [self._commit(commit.lease, commit.outcome, now) for commit in batch]

    async def close(self, session: str) -> None:
        now = self._now()
        held = self._store.sessions.pop(session, None)
        for job_id in sorted(held.held if held else ()):
            self._rescue(self._store.jobs[job_id], now)

    def renewer(self) -> Renewer:
        return _MemoryRenewer(self)

    def _expire(self, job: Job, now: int) -> bool:
        """Fail a queued job that waited longer than it may."""
        if job.queue_deadline_ms is None or job.queue_deadline_ms > now:
            return False
        error = JobError("queue_timeout", f"not started within {job.options.queue_timeout_s:g} s")
        self._store.finish(job, State.failed, now, error=_json(error))
        return True

    def _assign(self, job: Job, session: Session, request: LeaseRequest, now: int) -> Assignment:
        epoch = next_epoch(job.epoch, now)
        job = self._store.move(
            job,
            State.running,
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
            return self._repeated(lease, outcome)
        kept = {"last_outcome": outcome.kind, "output": outcome.output, "error": outcome.error}
        if outcome.usage is not None:
            kept["usage"] = outcome.usage
        if job.cancel_requested_at_ms is not None:
            return self._store.finish(job, State.cancelled, now, **{**kept, "error": None}).state
        if outcome.kind in _ENDS:
            return self._store.finish(job, _ENDS[outcome.kind], now, **kept).state
        if outcome.kind == "retry" and job.attempts_spent:
            return self._store.finish(job, State.failed, now, **kept).state
        return self._run_again(job, outcome, now).state

    def _run_again(self, job: Job, outcome: Outcome, now: int) -> Job:
        """Back in line after a failure, in `delay_ms`, or after a drain, the attempt given back."""
        released = outcome.kind == "release"
        return self._store.again(
            job,
            "released" if released else "retry",
            now,
            Cursor(job.epoch, job.seq),
            outcome.error,
            outcome.delay_ms,
            attempt=job.attempt - 1 if released else job.attempt,
            last_outcome=outcome.kind,
        )

    def _repeated(self, lease: Lease, outcome: Outcome) -> State | LeaseLost:
        """The state that the holder's earlier commit led to, when this is its repeat."""
        job = self._store.jobs.get(lease.job_id)
        if job is None or job.token != lease.token or job.last_outcome != outcome.kind:
            return LeaseLost()
        return job.state

    # -- Reading

    async def get(self, tenant: str, job_ids: Sequence[str]) -> list[Job | None]:
        self._now()
        return [self._store.owned(tenant, job_id) for job_id in job_ids]

    async def find(self, query: JobQuery) -> JobPage:
        self._now()
        before = None if query.before is None else int(query.before)
        found = [job for job in reversed(self._store.jobs.values()) if _fits(job, query)]
        if before is not None:
            found = [job for job in found if self._store.number(job.id) < before]
        jobs = tuple(found[: query.limit])
        more = len(found) > query.limit
        return JobPage(jobs, str(self._store.number(jobs[-1].id)) if more else None)

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        self._now()
        job = self._store.owned(tenant, job_id)
        if job is None:
            return None
        stored = [event for event in self._store.events.get(job_id, ()) if event.cursor > after]
        return page(job, stored[:limit], after, limit)

    async def position(self, tenant: str, job_id: str, limit: int = 10_000) -> int | None:
        self._now()
        job = self._store.owned(tenant, job_id)
        if job is None or job.state is not State.queued:
            return None
        return self._store.line(job.queue).ahead_of(job, self._store.is_queued, limit)

    async def stats(self, tenant: str | None = None) -> list[QueueStats]:
        self._now()
        oldest: dict[str, int] = {}
        for job in self._store.jobs.values():
            if job.state is State.queued and tenant in (None, job.tenant):
                oldest[job.queue] = min(oldest.get(job.queue, job.created_at_ms), job.created_at_ms)
        return [line.stats(tenant, oldest.get(name)) for name, line in sorted(self._store.lines.items())]

    async def tasks(self) -> list[TaskCard]:
        self._now()
        return sorted(self._store.catalogue.values(), key=lambda task: task.name)

    async def workers(self) -> list[WorkerCard]:
        self._now()
        return [
            msgspec.structs.replace(session.card, expires_at_ms=session.expires_at_ms, running=len(session.held))
            for session in self._store.sessions.values()
        ]

    def listen(self, *topics: str) -> Listener:
        return self._store.board.listen(*topics)

    # -- Upkeep

    async def promote(self, limit: int) -> Promotion:
        now = self._now()
        moved = 0
        while moved < limit and (job_id := self._store.pop_due(self._store.due, now)) is not None:
            job = self._store.jobs.get(job_id)
            if job is None:
                continue
            if job.state is State.scheduled and job.run_at_ms is not None and job.run_at_ms <= now:
                self._store.move(job, State.queued, run_at_ms=None)
                moved += 1
            elif job.state is State.queued:
                moved += self._expire(job, now)
        return Promotion(moved, self._store.due[0][0] if self._store.due else None)

    async def rescue(self, limit: int) -> int:
        now = self._now()
        lost = [session for session in self._store.sessions.values() if session.expires_at_ms <= now]
        rescued = 0
        for session in lost:
            for job_id in sorted(session.held)[: limit - rescued]:
                self._rescue(self._store.jobs[job_id], now)
                rescued += 1
            if not session.held:
                self._store.sessions.pop(session.card.session)
        return rescued

    async def prune(self, limit: int) -> int:
        now = self._now()
        pruned = 0
        while pruned < limit and (job_id := self._store.pop_due(self._store.expiring, now)) is not None:
            job = self._store.jobs.get(job_id)
            if job is not None:
                self._store.remove(job)
                pruned += 1
        for key, claim in tuple(self._store.claims.items()):
            if claim.expires_at_ms <= now and claim.job_id not in self._store.jobs:
                del self._store.claims[key]
        for line in self._store.lines.values():
            line.forget_idle_flows()
        return pruned

    async def elect(self, duty: str, holder: str, ttl_ms: int) -> bool:
        now = self._now()
        current, until = self._store.duties.get(duty, (holder, 0))
        if current != holder and until > now:
            return False
        self._store.duties[duty] = (holder, now + ttl_ms)
        return True

    def _rescue(self, job: Job, now: int) -> None:
        """End the attempt of a lost worker under a new epoch, so that the old holder's writes come too late."""
        epoch = next_epoch(job.epoch, now)
        crashes = job.crashes + 1
        fenced = {"token": None, "crashes": crashes}
        if job.cancel_requested_at_ms is not None:
            self._end_lost(job, State.cancelled, now, epoch, None, fenced)
        elif crashes >= job.options.max_crashes:
            error = msgspec.structs.replace(_WORKER_LOST, attempt=job.attempt)
            self._end_lost(job, State.failed, now, epoch, _json(error), fenced)
        else:
            error = msgspec.structs.replace(_WORKER_LOST, attempt=job.attempt, retryable=True)
            self._store.again(job, "worker_lost", now, Cursor(epoch, 0), _json(error), crashes=crashes, token=None)

    def _end_lost(
        self, job: Job, state: State, now: int, epoch: int, error: str | None, fenced: dict[str, int | None]
    ) -> None:
        """A lost attempt that ends its job: its opening is stored, since the terminal event stands in another epoch."""
        self._store.keep_opening(job)
        self._store.finish(job, state, now, epoch=epoch, seq=1, started_epoch=0, error=error, **fenced)

    def _now(self) -> int:
        if not self._is_open:
            raise EngineUnavailable("the engine is not open")
        return self._clock.now_ms()


class _MemoryRenewer:
    """Renews in the caller's own thread: there is no connection to have."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine

    def renew(self, session: str, ttl_ms: int) -> Renewal:
        return self._engine.renew_now(session, ttl_ms)

    def close_session(self, session: str) -> None:
        raise NotImplementedError("a memory engine has no supervisor: it dies with its process")

    def close(self) -> None:
        return None


def _fits(job: Job, query: JobQuery) -> bool:
    return (
        job.tenant == query.tenant
        and (not query.states or job.state in query.states)
        and query.queue in (None, job.queue)
        and query.task in (None, job.task)
        and (query.tag is None or query.tag in job.options.tags)
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()

"""Seeded bugs about attempts: fences, commits, retries, rescues, cancels, events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from handover import HandedOver

from ropeway.domain.change import Change, committed, worker_lost
from ropeway.domain.errors import LeaseLost
from ropeway.domain.event import Cursor
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
)
from ropeway.domain.lifecycle import State
from ropeway.domain.log import terminal_event
from ropeway.domain.retry import Retry
from ropeway.engines.memory.line import Line
from ropeway.engines.memory.store import Session

__all__ = [
    "AppendUnfenced",
    "AttemptNotCountedAtLease",
    "AttemptTooFew",
    "BatchSharesOutput",
    "CancelForgottenAtRescue",
    "CancelLostInCommit",
    "CommitById",
    "CommitIfRunning",
    "CommitWhenQueued",
    "EventNamesTheRun",
    "ExpiredSessionLeases",
    "FenceTokenNotChanged",
    "GapAfterAppend",
    "LeaseIsTwoSteps",
    "PoisonLoops",
    "ReleaseLosesJob",
    "RenewalHidesCancels",
    "RepeatSucceeds",
    "RescueDropsOutput",
    "RescueForgetsTheRest",
    "RescueOfLiveSession",
    "RescueTellsNobody",
    "RetriesNeverSpent",
    "SnoozeCostsAnAttempt",
    "SnoozesForEver",
    "StreamRewrittenOnRetry",
    "TerminalEventTwice",
]


class FenceTokenNotChanged(HandedOver):
    """A job's lease has the same token each time."""

    def _assign(self, job: Job, session: Session, request: LeaseRequest, now: int) -> Assignment:
        self._random = lambda count: job.id.encode().ljust(count, b"-")[:count]
        return super()._assign(job, session, request, now)


class AppendUnfenced(HandedOver):
    """An append asks only for the right number, not for the lease."""

    def _append(self, append: Append, now: int) -> Appended | LeaseLost:
        return super()._append(msgspec.structs.replace(append, lease=_current(self, append.lease)), now)


class CommitById(HandedOver):
    """A commit is `UPDATE ... WHERE id = ?` (Oban's way)."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        job = self._store.jobs.get(lease.job_id)
        if job is not None and job.state.terminal and outcome.kind == "succeeded":
            changed = msgspec.structs.replace(
                job, state=State.succeeded, output=outcome.output, version=job.version + 1, last_outcome=outcome.kind
            )
            self._store.jobs[job.id] = changed
            return changed.state
        return super()._commit(_current(self, lease), outcome, now)


class CommitIfRunning(HandedOver):
    """A commit asks for the state and not for the lease (River's and Procrastinate's way)."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        return super()._commit(_current(self, lease), outcome, now)


class CommitWhenQueued(HandedOver):
    """A commit is taken for a job that waits again: `WHERE id = ? AND status IN (todo, doing)`."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        job = self._store.jobs.get(lease.job_id)
        if job is not None and job.state is State.queued and job.runs and outcome.kind == "succeeded":
            running = msgspec.structs.replace(job, state=State.running)
            self._store.line(job.queue).count(job.tenant, job.state, State.running)
            return self._store.apply(running, committed(running, outcome, now), now).state
        return super()._commit(lease, outcome, now)


class BatchSharesOutput(HandedOver):
    """All commits of a batch keep the output of the first."""

    async def commit(self, batch: Sequence[Commit]) -> list[State | LeaseLost]:
        output = batch[0].outcome.output
        shared = [Commit(one.lease, msgspec.structs.replace(one.outcome, output=output)) for one in batch]
        return await super().commit(shared)


class RepeatSucceeds(HandedOver):
    """A repeated commit of any kind is answered as if it had just succeeded."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        job = self._store.jobs.get(lease.job_id)
        if job is not None and job.token == lease.token and job.state is not State.running:
            return State.succeeded
        return super()._commit(lease, outcome, now)


class LeaseIsTwoSteps(HandedOver):
    """A lease looks for jobs, and takes them a moment later."""

    async def lease(self, request: LeaseRequest) -> list[Assignment]:
        now = self._now()
        session = self._store.sessions.get(request.session)
        if session is None or session.expires_at_ms <= now:
            return []
        queued = [job for job in self._store.jobs.values() if job.state is State.queued]
        in_time = [job for job in queued if job.queue_deadline_ms is None or job.queue_deadline_ms > now]
        open_ = [job for job in in_time if job.queue in request.queues and not self._store.policy(job.queue).paused]
        chosen = sorted(open_, key=lambda job: (request.queues.index(job.queue), job.rank))[: request.limit]
        await asyncio.sleep(0)
        return [self._take(job.id, session, request, now) for job in chosen if not self._has_ended(job.id)]

    def _take(self, job_id: str, session: Session, request: LeaseRequest, now: int) -> Assignment:
        job = self._store.jobs[job_id]
        line = self._store.line(job.queue)
        _take_out(line, job_id)
        line.leased(job.rank, self._store.is_queued)
        if job.state is State.running:
            line.count(job.tenant, State.running, State.queued)
        return self._assign(msgspec.structs.replace(job, state=State.queued), session, request, now)

    def _has_ended(self, job_id: str) -> bool:
        job = self._store.jobs.get(job_id)
        return job is None or job.state.terminal


class AttemptNotCountedAtLease(HandedOver):
    """An attempt is counted when it fails: one that kills its worker is never counted."""

    def _assign(self, job: Job, session: Session, request: LeaseRequest, now: int) -> Assignment:
        job = msgspec.structs.replace(job, attempt=job.attempt - 1) if job.attempt else job
        return super()._assign(job, session, request, now)


class RetriesNeverSpent(HandedOver):
    """A failing job is tried for ever."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        job = self._held(lease)
        if job is None or outcome.kind != "retry":
            return super()._commit(lease, outcome, now)
        endless = msgspec.structs.replace(job.options, retry=Retry(max_attempts=1000))
        self._store.jobs[job.id] = msgspec.structs.replace(job, options=endless)
        state = super()._commit(lease, outcome, now)
        self._store.jobs[job.id] = msgspec.structs.replace(self._store.jobs[job.id], options=job.options)
        return state


class AttemptTooFew(HandedOver):
    """`>` for `>=`: one attempt less than allowed."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        job = self._held(lease)
        if job is not None and outcome.kind == "retry" and job.attempt + 1 >= job.options.retry.max_attempts:
            outcome = msgspec.structs.replace(outcome, kind="failed")
        return super()._commit(lease, outcome, now)


class PoisonLoops(HandedOver):
    """A job that kills its worker comes back for ever."""

    def _rescue(self, job: Job, now: int) -> None:
        patient = msgspec.structs.replace(job.options, max_crashes=1000)
        super()._rescue(msgspec.structs.replace(job, options=patient), now)
        rescued = self._store.jobs[job.id]
        self._store.jobs[job.id] = msgspec.structs.replace(rescued, options=job.options)


class ReleaseLosesJob(HandedOver):
    """A drained job is marked as queued and put in no line."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        state = super()._commit(lease, outcome, now)
        if outcome.kind == "release" and state is State.queued:
            _take_out(self._store.line(self._store.jobs[lease.job_id].queue), lease.job_id)
        return state


class RescueOfLiveSession(HandedOver):
    """A sweeper takes sessions that are merely late to renew."""

    async def rescue(self, limit: int) -> int:
        for session in self._store.sessions.values():
            session.expires_at_ms -= 2500
        return await super().rescue(limit)


class RescueForgetsTheRest(HandedOver):
    """A rescue ends one attempt of a lost session and takes the session for done."""

    async def rescue(self, limit: int) -> int:
        for session in self._store.sessions.values():
            if session.expires_at_ms <= self._now():
                session.held = set(sorted(session.held)[:1])
        return await super().rescue(limit)


class RescueTellsNobody(HandedOver):
    """The rescue ends jobs without their outbox."""

    def _rescue(self, job: Job, now: int) -> None:
        self._store.apply(job, worker_lost(job, now)._replace(delivery=None), now)


class RescueDropsOutput(HandedOver):
    """What a lost worker had appended is in the log alone: the ended job's row has no output."""

    def _kept(self, job: Job, change: Change) -> Change:
        return change


class SnoozeCostsAnAttempt(HandedOver):
    """A snooze is a retry with a delay."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        state = super()._commit(lease, outcome, now)
        job = self._store.jobs.get(lease.job_id)
        if outcome.kind == "snooze" and job is not None and state in (State.queued, State.scheduled):
            self._store.jobs[job.id] = msgspec.structs.replace(job, attempt=job.attempt + 1)
        return state


class SnoozesForEver(HandedOver):
    """Nobody counts snoozes."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        job = self._held(lease)
        if job is None or outcome.kind != "snooze":
            return super()._commit(lease, outcome, now)
        patient = msgspec.structs.replace(job.options, max_snoozes=1000)
        self._store.jobs[job.id] = msgspec.structs.replace(job, options=patient)
        state = super()._commit(lease, outcome, now)
        self._store.jobs[job.id] = msgspec.structs.replace(self._store.jobs[job.id], options=job.options)
        return state


class CancelLostInCommit(HandedOver):
    """A commit does not look whether a cancel was asked."""

    def _commit(self, lease: Lease, outcome: Outcome, now: int) -> State | LeaseLost:
        job = self._held(lease)
        if job is not None and job.cancel_requested_at_ms is not None:
            self._store.jobs[job.id] = msgspec.structs.replace(job, cancel_requested_at_ms=None)
        return super()._commit(lease, outcome, now)


class CancelForgottenAtRescue(HandedOver):
    """A lost worker's job is tried again though a cancel was asked."""

    def _rescue(self, job: Job, now: int) -> None:
        super()._rescue(msgspec.structs.replace(job, cancel_requested_at_ms=None), now)
        rescued = self._store.jobs[job.id]
        self._store.jobs[job.id] = msgspec.structs.replace(rescued, cancel_requested_at_ms=job.cancel_requested_at_ms)


class ExpiredSessionLeases(HandedOver):
    """A session past its deadline still gets jobs, until somebody rescues it."""

    async def lease(self, request: LeaseRequest) -> list[Assignment]:
        session = self._store.sessions.get(request.session)
        if session is None:
            return []
        until, session.expires_at_ms = session.expires_at_ms, self._now() + 1
        leased = await super().lease(request)
        session.expires_at_ms = until
        return leased


class RenewalHidesCancels(HandedOver):
    """A renewal does not tell which jobs were asked to stop."""

    async def renew(self, session: str, ttl_ms: int) -> Renewal:
        return Renewal((await super().renew(session, ttl_ms)).alive)


class StreamRewrittenOnRetry(HandedOver):
    """A retry writes its events over those of the attempt before, under the same ids."""

    def _assign(self, job: Job, session: Session, request: LeaseRequest, now: int) -> Assignment:
        opened = [event.cursor.epoch for event in self._store.events.pop(job.id, ())]
        if opened and job.runs:
            job = msgspec.structs.replace(job, epoch=min(opened) - 1)
        return super()._assign(job, session, request, min(now, job.epoch + 1) if opened else now)


class TerminalEventTwice(HandedOver):
    """The end of a job is stored as an event, and told again from the row."""

    async def commit(self, batch: Sequence[Commit]) -> list[State | LeaseLost]:
        before = {commit.lease.job_id: self._held(commit.lease) for commit in batch}
        answers = await super().commit(batch)
        for job_id, held in before.items():
            job = self._store.jobs.get(job_id)
            if held is None or job is None or not job.state.terminal:
                continue
            event = msgspec.structs.replace(terminal_event(job), cursor=Cursor(job.epoch, job.seq - 1))
            self._store.events.setdefault(job_id, []).append(event)
            self._store.jobs[job_id] = msgspec.structs.replace(job, seq=job.seq + 1)
        return answers


class GapAfterAppend(HandedOver):
    """A number is lost after each append, as a sequence's is that was rolled back."""

    def _append(self, append: Append, now: int) -> Appended | LeaseLost:
        answer = super()._append(append, now)
        job = self._store.jobs.get(append.lease.job_id)
        if isinstance(answer, LeaseLost) or job is None:
            return answer
        self._store.jobs[job.id] = msgspec.structs.replace(job, seq=job.seq + 1)
        return Appended(job.seq + 1, answer.cancel_requested)


class EventNamesTheRun(HandedOver):
    """Events name the run, which counts released attempts too, instead of the attempt."""

    def _append(self, append: Append, now: int) -> Appended | LeaseLost:
        job = self._store.jobs.get(append.lease.job_id)
        answer = super()._append(append, now)
        if job is not None and isinstance(answer, Appended):
            log = self._store.events[job.id]
            renamed = [
                msgspec.structs.replace(event, attempt=job.runs)
                if event.cursor >= Cursor(job.epoch, append.expected_seq)
                else event
                for event in log
            ]
            self._store.events[job.id] = renamed
        return answer


def _current(engine: HandedOver, lease: Lease) -> Lease:
    """The lease that holds this job now, whoever asks."""
    job = engine.left_behind().jobs.get(lease.job_id)
    return lease if job is None or job.token is None else Lease(lease.job_id, job.epoch, job.token)


def _take_out(line: Line, job_id: str) -> None:
    """Take a job out of its line."""
    for band, heap in line._heaps.items():
        line._heaps[band] = [entry for entry in heap if entry[2] != job_id]

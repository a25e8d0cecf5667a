"""What must be true of wakings: none is lost, and none does more than it says."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ropeway.domain.job import Job
from ropeway.domain.lease import Commit
from ropeway.domain.lifecycle import State
from ropeway.testing.history.facts import Change, Facts, Moment
from ropeway.testing.history.record import Violation

__all__ = ["wakings_are_kept", "wakings_do_no_more"]

Attempt = tuple[str, int]
"""A job, and which of its runs."""


def wakings_are_kept(facts: Facts) -> Iterator[Violation]:
    """U1: a job whose waking was answered waits for no time: not now, nor by a snooze of the attempt that was woken."""
    woken: set[Attempt] = set()
    for moment in facts.moments:
        for job in _woken_in(moment):
            if job.state is State.running:
                woken.add((job.id, job.runs))
            after = moment.step.look.jobs.get(job.id, job)
            if job.state is State.scheduled or (after.state is State.scheduled and not _fails_in(moment, job.id)):
                yield Violation("U1", moment.step.number, f"{job.id} was woken, and waits for {after.run_at_ms}")
        for _, new in moment.changes:
            sleeps = new is not None and new.state is State.scheduled and new.last_outcome == "snooze"
            if new is not None and sleeps and (new.id, new.runs) in woken:
                yield Violation("U1", moment.step.number, f"{new.id} was woken in run {new.runs}, and sleeps after it")
        for commit, answer in _snoozes(moment):
            attempt = (commit.lease.job_id, facts.run_of(commit.lease))
            if answer is State.scheduled and attempt in woken:
                yield Violation("U1", moment.step.number, f"{commit} of a woken attempt was answered {answer}")


def wakings_do_no_more(facts: Facts) -> Iterator[Violation]:
    """U2: a waking changes its own tenant's jobs alone, no more of them than it must, and is of one attempt."""
    maybe: set[Attempt] = set()
    for moment in facts.moments:
        op = moment.step.only
        if op is not None and op.call.method == "wake":
            yield from _waking_faults(moment, *op.call.args)
        elif moment.only is not None:
            yield from _snooze_faults(facts, moment, maybe)
        maybe |= _maybe_woken(moment)
        for _, new in moment.changes:
            if new is not None and _is_awake(new) and (new.id, new.runs) not in maybe:
                yield Violation("U2", moment.step.number, f"{new.id} counts as woken in run {new.runs}, and nobody did")


def _woken_in(moment: Moment) -> Iterator[Job]:
    """The answers of a step's wakings."""
    for op in moment.step.ops:
        if op.call.method == "wake" and op.is_ok:
            yield from (answer for answer in op.answer if isinstance(answer, Job))


def _maybe_woken(moment: Moment) -> set[Attempt]:
    """The attempts that were woken in a step, or may have been."""
    looks = (moment.before.jobs, moment.step.look.jobs)
    return {
        (job.id, job.runs)
        for op in moment.step.ops
        if op.call.method == "wake"
        for job_id in op.call.args[1]
        for jobs in looks
        if (job := jobs.get(job_id)) is not None
    }


def _fails_in(moment: Moment, job_id: str) -> bool:
    """Whether an attempt of the job may have failed in this step, to be tried again at its time: that is no snooze."""
    return any(
        commit.lease.job_id == job_id and commit.outcome.kind in ("retry", "crashed")
        for op in moment.step.ops
        if op.call.method == "commit"
        for commit in op.call.args[0]
    )


def _snoozes(moment: Moment) -> Iterator[tuple[Commit, object]]:
    for op in moment.step.ops:
        if op.call.method == "commit":
            yield from ((commit, answer) for commit, answer in op.batch if commit.outcome.kind == "snooze")


def _waking_faults(moment: Moment, tenant: str, job_ids: list[str]) -> Iterator[Violation]:
    """A waking alone: each job is as it must be, or, where no answer came, as it was."""
    for old, new in moment.changes:
        if old is None or new is None:
            yield Violation("U2", moment.step.number, f"a waking made or removed {Change(old, new).job.id}")
            continue
        named = old.id in job_ids and old.tenant == tenant
        expected = _awake(old, moment.step.at_ms) if named else old
        if new != expected:
            yield Violation("U2", moment.step.number, f"a waking made of {old.id} {new}, and not {expected}")
    for job in _woken_in(moment) if moment.only is not None else ():
        if job != moment.step.look.jobs.get(job.id):
            yield Violation("U2", moment.step.number, f"a waking was answered {job}, which is not how it stands")


def _awake(job: Job, now: int) -> Job:
    """A job as it stands after its waking."""
    if job.state is State.scheduled:
        deadline_ms = job.queue_deadline_ms
        if deadline_ms is not None and job.run_at_ms is not None:
            deadline_ms = now + deadline_ms - job.run_at_ms
        moved = {"state": State.queued, "run_at_ms": None, "queue_deadline_ms": deadline_ms}
        return msgspec.structs.replace(job, version=job.version + 1, **moved)
    if job.state is not State.running or job.cancel_requested_at_ms is not None or _is_awake(job):
        return job
    return msgspec.structs.replace(job, version=job.version + 1, woken_epoch=job.epoch)


def _is_awake(job: Job) -> bool:
    return job.state is State.running and job.woken_epoch == job.epoch


def _snooze_faults(facts: Facts, moment: Moment, maybe: set[Attempt]) -> Iterator[Violation]:
    """Attempts that nobody woke sleep as long as they said."""
    seen: set[str] = set()
    for commit, answer in moment.only.batch if moment.only is not None and moment.only.call.method == "commit" else ():
        job = moment.before.jobs.get(commit.lease.job_id)
        is_first = commit.lease.job_id not in seen
        seen.add(commit.lease.job_id)
        if job is None or job.state is not State.running or job.runs != facts.run_of(commit.lease) or not is_first:
            continue
        if commit.outcome.kind != "snooze" or not commit.outcome.delay_ms or (job.id, job.runs) in maybe:
            continue
        if answer is State.queued:
            yield Violation("U2", moment.step.number, f"{commit} was answered {answer}, and nobody woke {job.id}")

"""What must be true of attempts: fenced, counted, ended once, and never ended well after a cancel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ropeway.domain.errors import LeaseLost
from ropeway.domain.job import Job
from ropeway.domain.lease import Commit, Lease
from ropeway.domain.lifecycle import State
from ropeway.testing.history.facts import Change, Facts, Moment
from ropeway.testing.history.record import Violation

__all__ = [
    "attempts_are_counted",
    "budgets_are_kept",
    "cancels_are_final",
    "one_result_commits",
    "only_the_holder_writes",
]


def only_the_holder_writes(facts: Facts) -> Iterator[Violation]:
    """I4: of all leases of a job only the last granted one writes, while the job runs; and it always may."""
    for moment in facts.moments:
        for item, answer in _writes(moment):
            job = moment.before.jobs.get(item.lease.job_id)
            holds = job is not None and job.state is State.running and job.runs == facts.run_of(item.lease)
            if holds and isinstance(answer, LeaseLost) and not _is_out_of_turn(item, job):
                yield Violation("I4", moment.step.number, f"the holder's {item} was refused")
            if not holds and not isinstance(answer, LeaseLost) and not _is_repeat(facts, moment, item, job):
                yield Violation("I4", moment.step.number, f"a stale {item} was answered {answer!r}")


def one_result_commits(facts: Facts) -> Iterator[Violation]:
    """I3: at most one lease's commit ends a job, and the output kept is that commit's own."""
    ended_by: dict[str, set[Lease]] = {}
    committed: set[tuple[str, str | None]] = set()
    for commit, answer in _commits(facts):
        if commit.outcome.kind == "succeeded":
            committed.add((commit.lease.job_id, commit.outcome.output))
        if answer in (State.succeeded, State.failed):
            ended_by.setdefault(commit.lease.job_id, set()).add(commit.lease)
    for job_id, leases in ended_by.items():
        if len(leases) > 1:
            yield Violation("I3", len(facts.moments), f"{job_id} was ended under {len(leases)} leases")
    for moment in facts.moments:
        for _, job in moment.changes:
            if job is not None and job.state is State.succeeded and (job.id, job.output) not in committed:
                text = f"{job.id} succeeded with {job.output}, which nobody committed"
                yield Violation("I3", moment.step.number, text)


def attempts_are_counted(facts: Facts) -> Iterator[Violation]:
    """I10a: a lease counts an attempt and a run, a release or a snooze gives it back, a lost worker counts a crash."""
    for moment in facts.moments:
        if moment.step.only is None:
            continue
        for old, new in moment.changes:
            if old is None or new is None or old.state.terminal:
                continue
            expected = _counts_after(moment, Change(old, new))
            counts = (new.runs - old.runs, new.attempt - old.attempt, new.crashes - old.crashes)
            if expected is not None and counts != expected:
                text = f"{old.id}: runs, attempt, crashes moved by {counts}, not {expected}"
                yield Violation("I10a", moment.step.number, text)


def budgets_are_kept(facts: Facts) -> Iterator[Violation]:
    """I10: no attempt beyond `max_attempts` but for crashes, no crash or snooze beyond its limit, none held back."""
    for moment in facts.moments:
        for change in moment.changes:
            job = change.job
            if job.attempt - job.crashes > job.options.retry.max_attempts:
                yield Violation("I10", moment.step.number, f"{job.id} is at attempt {job.attempt}: {job.options.retry}")
            if job.crashes > job.options.max_crashes:
                yield Violation("I10", moment.step.number, f"{job.id} crashed {job.crashes} times")
        if isinstance(moment.only_answer("commit"), list):
            yield from _retry_faults(moment)
            yield from _snooze_faults(moment)
        yield from _crash_faults(moment)


def cancels_are_final(facts: Facts) -> Iterator[Violation]:
    """I11: once a cancel is recorded a job runs on at most to its end, and that end is cancelled."""
    for moment in facts.moments:
        for old, new in moment.changes:
            if new is None:
                continue
            if new.cancel_requested_at_ms is not None and new.state not in (State.running, State.cancelled):
                yield Violation("I11", moment.step.number, f"{new.id} was asked to cancel and is {new.state}")
            if old is not None and old.cancel_requested_at_ms is not None and new.cancel_requested_at_ms is None:
                yield Violation("I11", moment.step.number, f"{new.id} forgot that it was asked to cancel")
        yield from _unheard_cancels(moment)


def _commits(facts: Facts) -> Iterator[tuple[Commit, object]]:
    """Every commit with its answer, None where it is unknown."""
    for moment in facts.moments:
        for op in moment.step.ops:
            if op.call.method == "commit":
                yield from op.batch


def _writes(moment: Moment) -> Iterator[tuple[Any, Any]]:
    """The appends or commits of a call made alone, the first one of each job."""
    if moment.only is None or moment.only.call.method not in ("append", "commit"):
        return
    seen: set[str] = set()
    for item, answer in moment.only.batch:
        if item.lease.job_id not in seen:
            seen.add(item.lease.job_id)
            yield item, answer


def _is_out_of_turn(item: Any, job: Job | None) -> bool:
    """An append at a number that is not the next; whether it is a repeat is the conformance suite's matter."""
    return not isinstance(item, Commit) and job is not None and item.expected_seq != job.seq


def _is_repeat(facts: Facts, moment: Moment, item: Any, job: Job | None) -> bool:
    """Whether this is the last holder's repeat of a commit that it made before."""
    if not isinstance(item, Commit) or job is None or job.runs != facts.run_of(item.lease):
        return False
    return any(
        earlier.lease == item.lease and earlier.outcome.kind == item.outcome.kind
        for past in facts.moments[: moment.step.number]
        for op in past.step.ops
        if op.call.method == "commit"
        for earlier in op.call.args[0]
    )


def _counts_after(moment: Moment, change: Change) -> tuple[int, int, int] | None:
    """By how much runs, attempt and crashes must have moved; None where the step does not tell."""
    old, new = change
    op = moment.step.only
    assert old is not None and new is not None and op is not None
    if op.call.method == "lease" and new.state is State.running:
        return (1, 1, 0)
    if old.state is not State.running:
        return (0, 0, 0)  # parked, or called, as others ended
    if op.call.method in ("rescue", "close"):
        return (0, 0, 1)
    if op.call.method == "commit":
        released = new.last_outcome in ("release", "snooze") and new.state in (State.queued, State.scheduled)
        crashed = new.last_outcome == "crashed" and new.state is not State.cancelled
        return (0, -1 if released else 0, 1 if crashed else 0)
    return (0, 0, 0)


def _retry_faults(moment: Moment) -> Iterator[Violation]:
    for commit, answer in _writes(moment):
        job = moment.before.jobs.get(commit.lease.job_id)
        if job is None or job.state is not State.running or job.cancel_requested_at_ms is not None:
            continue
        if commit.outcome.kind != "retry" or isinstance(answer, LeaseLost):
            continue
        spent = job.attempt - job.crashes >= job.options.retry.max_attempts
        if (answer is State.failed) != spent:
            text = f"a retry after attempt {job.attempt} ({job.crashes} crashes) of {job.id} came to {answer}"
            yield Violation("I10", moment.step.number, text)


def _snooze_faults(moment: Moment) -> Iterator[Violation]:
    for commit, answer in _writes(moment):
        job = moment.before.jobs.get(commit.lease.job_id)
        if job is None or job.state is not State.running or job.cancel_requested_at_ms is not None:
            continue
        if commit.outcome.kind != "snooze" or isinstance(answer, LeaseLost):
            continue
        if (answer is State.failed) != (job.runs - job.attempt >= job.options.max_snoozes):
            text = f"a snooze of {job.id} after {job.runs} runs, attempt {job.attempt}, came to {answer}"
            yield Violation("I10", moment.step.number, text)


def _crash_faults(moment: Moment) -> Iterator[Violation]:
    if moment.only is None or moment.only.call.method not in ("rescue", "close", "commit"):
        return
    for old, new in moment.changes:
        if old is None or new is None or old.state is not State.running or old.cancel_requested_at_ms is not None:
            continue
        if moment.only.call.method == "commit" and new.last_outcome != "crashed":
            continue
        if (new.state is State.failed) != (new.crashes >= new.options.max_crashes):
            text = f"{new.id} is {new.state} after crash {new.crashes} of {new.options.max_crashes}"
            yield Violation("I10", moment.step.number, text)


def _unheard_cancels(moment: Moment) -> Iterator[Violation]:
    if moment.only is None or moment.only.call.method != "cancel":
        return
    tenant, ids, _ = moment.only.call.args
    for job_id in ids:
        before, after = moment.before.jobs.get(job_id), moment.step.look.jobs.get(job_id)
        if before is None or before.tenant != tenant or before.state.terminal or after is None:
            continue
        if after.cancel_requested_at_ms is None and after.joined != before.joined - 1:
            yield Violation("I11", moment.step.number, f"a cancel of {job_id} was answered and not recorded")

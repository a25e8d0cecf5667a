"""W1: each job's calls, those at the same time too, have an order in which every answer is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ropeway.domain.errors import LeaseLost
from ropeway.domain.job import Job, Receipt
from ropeway.domain.lifecycle import State
from ropeway.testing.history.facts import Facts, Moment
from ropeway.testing.history.linearizability import NEVER, Timed, linearizable
from ropeway.testing.history.record import Op, Violation

__all__ = ["JobState", "calls_have_an_order", "step"]


class JobState(NamedTuple):
    """A job as the model knows it.

    `phase` is waiting, running or a terminal state; `holder` the token of its last lease; `last` the outcome that
    this lease committed; `asked`: to cancel; `joined`: how many share it beside the first; `woken`: while it ran.
    """

    phase: str = "waiting"
    holder: str | None = None
    last: str | None = None
    asked: bool = False
    joined: int = 0
    woken: bool = False


def calls_have_an_order(facts: Facts) -> Iterator[Violation]:
    """W1: each job's calls, those at the same time too, have an order in which every answer is right."""
    for job_id, ops in _by_job(facts).items():
        if not linearizable(ops, JobState(), step):
            calls = "; ".join(f"{op.start:g} {op.what} {op.detail} -> {op.answer}" for op in ops)
            yield Violation("W1", len(facts.moments), f"no order explains the calls of {job_id}: {calls}")


def step(state: JobState, op: Timed) -> Iterable[JobState]:
    """The states that this call may lead to; none when its answer is impossible."""
    return _STEPS[op.what](state, op)


def _lease(state: JobState, op: Timed) -> Iterable[JobState]:
    if state.phase != "waiting":
        return []
    return [state._replace(phase="running", holder=op.detail, last=None, woken=False)]


def _look(state: JobState, op: Timed) -> Iterable[JobState]:
    return [state] if (state.phase, state.asked, state.joined, _is_awake(state)) == op.answer else []


def _append(state: JobState, op: Timed) -> Iterable[JobState]:
    holds = (state.phase, state.holder) == ("running", op.detail)
    if isinstance(op.answer, LeaseLost):
        return [state]  # out of turn, perhaps: only_the_holder_writes looks at the numbers
    return [state] if holds and op.answer.cancel_requested == state.asked else []


def _commit(state: JobState, op: Timed) -> Iterable[JobState]:
    token, kind = op.detail
    if (state.phase, state.holder) == ("running", token):
        if kind == "snooze" and state.woken and op.answer is State.scheduled:
            return []
        return [after for after in _ends(state, kind) if op.answer is None or _phase(op.answer) == after.phase]
    if (state.holder, state.last) == (token, kind):
        return [state] if op.answer is None or _phase(op.answer) == state.phase else []
    return [state] if op.answer is None or isinstance(op.answer, LeaseLost) else []


_AGAIN = {
    "retry": ("waiting", "failed"),
    "crashed": ("waiting", "failed"),
    "snooze": ("waiting", "failed"),
    "release": ("waiting",),
}


def _ends(state: JobState, kind: str) -> list[JobState]:
    """What a commit of this kind by the holder may make of the job."""
    phases = _AGAIN.get(kind, (kind,))
    if state.asked:
        phases = ("cancelled",)
    return [state._replace(phase=phase, last=kind) for phase in phases]


def _cancel(state: JobState, op: Timed) -> Iterable[JobState]:
    after = state
    if state.joined and not state.asked and state.phase in ("waiting", "running"):
        after = state._replace(joined=state.joined - 1)
    elif state.phase == "waiting":
        after = state._replace(phase="cancelled", asked=True)
    elif state.phase == "running":
        after = state._replace(asked=True)
    return [after] if op.answer is None or _phase(op.answer.state) == after.phase else []


def _wake(state: JobState, op: Timed) -> Iterable[JobState]:
    """What waits goes on waiting, though for its turn alone now; what runs, and is not to stop, is noted as woken."""
    after = state._replace(woken=True) if state.phase == "running" and not state.asked else state
    if op.answer is None:
        return [after]
    agrees = op.answer.state is not State.scheduled and _phase(op.answer.state) == after.phase
    return [after] if agrees and _was_woken(op.answer) == _is_awake(after) else []


def _is_awake(state: JobState) -> bool:
    return state.woken and state.phase == "running"


def _was_woken(job: Job) -> bool:
    return job.state is State.running and job.woken_epoch == job.epoch


def _join(state: JobState, op: Timed) -> Iterable[JobState]:
    """A submit that was answered with this job, or may have been; one that is sent again is counted once."""
    if state.phase in ("waiting", "running") and not state.asked:
        return [state, state._replace(joined=state.joined + 1)]
    return [state] if op.answer is None or state.phase == "succeeded" else []


def _maybe_lost(state: JobState, op: Timed) -> Iterable[JobState]:
    """A rescue or a close in whose step this job changed."""
    if state.phase != "running":
        return [state]
    phases = ("cancelled",) if state.asked else ("waiting", "failed")
    return [state, *(state._replace(phase=phase, holder=None, last=None) for phase in phases)]


def _maybe_expired(state: JobState, op: Timed) -> Iterable[JobState]:
    """A promotion or a lease in whose step this job failed."""
    return [state, state._replace(phase="failed")] if state.phase == "waiting" else [state]


def _maybe_leased(state: JobState, op: Timed) -> Iterable[JobState]:
    """A lease without an answer in whose step this job changed: whoever holds it does not know."""
    return [state, *_lease(state, op)]


_STEPS = {
    "append": _append,
    "cancel": _cancel,
    "commit": _commit,
    "join": _join,
    "lease": _lease,
    "look": _look,
    "maybe expired": _maybe_expired,
    "maybe leased": _maybe_leased,
    "maybe lost": _maybe_lost,
    "wake": _wake,
}


def _by_job(facts: Facts) -> dict[str, list[Timed]]:
    """The calls that touch each job from its coming to its deletion, and how it looked after each such step."""
    by_job: dict[str, list[Timed]] = {}
    for moment in facts.moments:
        now = moment.step.look.jobs
        changed = {change.job.id for change in moment.changes} & now.keys()
        touched = set(changed)
        for op in moment.step.ops:
            parts = [
                *_named(op, moment),
                *_joined(op, moment),
                *((job_id, part) for part in _unnamed(op, moment) for job_id in changed),
            ]
            for job_id, timed in parts:
                if job_id in now:
                    by_job.setdefault(job_id, []).append(timed)
                    touched.add(job_id)
        for job_id in touched:
            at = moment.step.number + 0.75
            by_job.setdefault(job_id, []).append(Timed(at, at, "look", None, _looks(now[job_id])))
    return by_job


def _named(op: Op, moment: Moment) -> Iterator[tuple[str, Timed]]:
    """The parts of a call that name a job."""
    start = float(moment.step.number)
    end = start + 0.5 if op.is_ok else NEVER
    method = op.call.method
    if method == "lease" and op.is_ok:
        for held in op.answer:
            yield held.job_id, Timed(start, end, "lease", held.lease.token)
    elif method == "append" and op.is_ok:
        for append, answer in op.batch:
            yield append.lease.job_id, Timed(start, end, "append", append.lease.token, answer)
    elif method == "commit":
        for commit, answer in op.batch:
            yield commit.lease.job_id, Timed(start, end, "commit", (commit.lease.token, commit.outcome.kind), answer)
    elif method in ("cancel", "wake"):
        for job_id, answer in op.batch:
            if isinstance(answer, Job) or (answer is None and _may_ask(op, job_id, moment)):
                yield job_id, Timed(start, end, method, None, answer)


def _joined(op: Op, moment: Moment) -> Iterator[tuple[str, Timed]]:
    """The submits that were answered with a job of another's."""
    start = float(moment.step.number)
    for new, answer in op.batch if op.call.method == "submit" and op.is_ok else ():
        if isinstance(answer, Receipt) and answer.cached:
            yield answer.job.id, Timed(start, start + 0.5, "join", new.id, answer)


def _unnamed(op: Op, moment: Moment) -> Iterator[Timed]:
    """What a call may have done to any job that changed in its step."""
    start = float(moment.step.number)
    method = op.call.method
    if method in ("rescue", "close"):
        yield Timed(start, start + 0.5, "maybe lost")
    elif method in ("promote", "lease"):
        yield Timed(start, start + 0.5, "maybe expired")
    if method == "submit" and not op.is_ok:
        yield from (Timed(start, start + 0.5, "join", new.id) for new in op.call.args[0] if new.cache is not None)
    if method == "lease" and not op.is_ok:
        yield Timed(start, start + 0.5, "maybe leased", f"unknown-{moment.step.number}")


def _may_ask(op: Op, job_id: str, moment: Moment) -> bool:
    """Whether a call of which no answer is known is by the job's own tenant."""
    job = moment.step.look.jobs.get(job_id)
    return job is not None and job.tenant == op.call.args[0]


def _looks(job: Job) -> tuple[str, bool, int, bool]:
    return _phase(job.state), job.cancel_requested_at_ms is not None, job.joined, _was_woken(job)


def _phase(state: Any) -> str:
    return "waiting" if state in (State.queued, State.scheduled) else str(state)

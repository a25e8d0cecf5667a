"""What must be true of limits: none is gone beyond, and nobody is left parked under a key that is free."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import (
    CALL_AGAIN_MS,
    Limit,
    LimitState,
    finished,
    signalled,
    started,
    taken_by,
    wait_ms,
)
from ropeway.testing.history.facts import Change, Facts, Moment
from ropeway.testing.history.record import Op, Violation

__all__ = ["limits_are_kept", "parked_jobs_are_called"]


class Keys:
    """What is left of each key, worked out from the rows that changed. Of calls at the same time the ends come first,
    and what they give back is counted as much as it may be."""

    def __init__(self) -> None:
        self._states: dict[str, LimitState] = {}

    def state(self, key: str) -> LimitState:
        return self._states.get(key) or LimitState(key)

    def follow(self, moment: Moment) -> Iterator[tuple[Job, Limit]]:
        """Take in a moment. Gives the jobs that started in it, each with a limit that had no room for it."""
        now = moment.step.at_ms
        for op in moment.step.ops:
            self._heard(op, now)
        ends = [change for change in moment.changes if _has_ended(change)]
        starts = _starts(moment)
        for old, new in ends:
            job = new or old
            assert job is not None
            self._end(job, now)
        for job in starts:
            yield from ((job, limit) for limit in job.options.limits if not self._start(limit, now))
        for job in starts:
            if job.state is not State.running:
                self._end(job, now)
        if len(moment.step.ops) > 1 and ends and starts:
            self._fill({limit.key for job in starts for limit in job.options.limits})

    def _heard(self, op: Op, now: int) -> None:
        """What an operator set, or a provider told."""
        if op.call.method == "set_limits":
            for key, policy in op.call.args[0].items():
                self._states[key] = msgspec.structs.replace(self.state(key), policy=policy)
        elif op.call.method == "signal":
            for signal in op.call.args[0]:
                self._states[signal.limit.key] = signalled(signal, self.state(signal.limit.key), now)

    def _start(self, limit: Limit, now: int) -> bool:
        state = self.state(limit.key)
        self._states[limit.key] = started(limit, state, now)
        return wait_ms(limit, state, now) is None

    def _end(self, job: Job, now: int) -> None:
        outcome = "release" if job.state is State.running else job.last_outcome or "lost"
        for limit in job.options.limits:
            took = taken_by(limit, outcome, None)
            self._states[limit.key] = finished(limit, self.state(limit.key), now, took)

    def _fill(self, keys: set[str]) -> None:
        for key in keys:
            self._states[key] = self.state(key).holding(None, 0)


def limits_are_kept(facts: Facts) -> Iterator[Violation]:
    """Q1: no job starts that does not fit its limits: not more at once, nor faster, than all of them allow."""
    keys = Keys()
    for moment in facts.moments:
        for job, limit in keys.follow(moment):
            yield Violation("Q1", moment.step.number, f"{job.id} started, and {limit} had no room for it")


def parked_jobs_are_called(facts: Facts) -> Iterator[Violation]:
    """Q2: where nothing of a key runs or stands in line and its bucket is full, no promotion leaves a job parked."""
    keys = Keys()
    free_since: dict[str, int] = {}
    latest = 0
    for moment in facts.moments:
        list(keys.follow(moment))
        now = moment.step.at_ms
        latest = max(latest, now)
        jobs = list(moment.step.look.jobs.values())
        parked = {job.parked: job.id for job in jobs if job.parked is not None}
        free = {key for key in parked if key is not None and _is_free(key, keys.state(key), jobs, now)}
        free_since = {key: free_since.get(key, latest) for key in free}
        if moment.only_answer("promote") is None:
            continue
        for key, since in free_since.items():
            if now >= since + CALL_AGAIN_MS:
                yield Violation("Q2", moment.step.number, f"{parked[key]} is parked under {key}, which is free")


def _is_free(key: str, state: LimitState, jobs: list[Job], now: int) -> bool:
    limits = {limit.key: limit for job in jobs for limit in job.options.limits}
    state = state.at(limits[key], now)
    in_line = any(
        job.state is State.queued and job.parked is None and any(limit.key == key for limit in job.options.limits)
        for job in jobs
    )
    return not in_line and not state.running and not state.paused_until_ms and state.level is None


def _has_ended(change: Change) -> bool:
    """Whether an attempt ended in this step that ran before it."""
    old, new = change
    return old is not None and old.state is State.running and (new is None or _left(old, new))


def _left(old: Job, new: Job) -> bool:
    return new.state is not State.running or new.runs > old.runs


def _starts(moment: Moment) -> list[Job]:
    """The jobs that started, in the order of the answer where one lease tells it."""
    jobs = {new.id: new for old, new in moment.changes if new is not None and new.runs > (old.runs if old else 0)}
    leased = moment.only_answer("lease") or []
    order = [held.job_id for held in leased if held.job_id in jobs]
    return [jobs[job_id] for job_id in (*order, *(job_id for job_id in jobs if job_id not in order))]

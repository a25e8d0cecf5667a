"""A history prepared for the invariants: each step with what was before it, and the rows that it changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ropeway.domain.job import Job, NewJob
from ropeway.domain.lease import Assignment
from ropeway.testing.history.record import History, Look, Op, Step

__all__ = ["Change", "Facts", "Moment", "submitted"]


class Change(NamedTuple):
    """A job's row before and after a step; None: not there."""

    old: Job | None
    new: Job | None

    @property
    def job(self) -> Job:
        job = self.new or self.old
        assert job is not None
        return job


class Moment(NamedTuple):
    """A step in its place. `only` is its call, if it was one alone and its answer came."""

    before: Look
    step: Step
    changes: list[Change]
    only: Op | None

    def only_answer(self, *methods: str) -> Any:
        """The answer to the one call of this step, if it is one of these methods; else None."""
        op = self.only
        return op.answer if op is not None and op.call.method in methods else None

    def born(self) -> Iterator[Job]:
        """The jobs that came in this step, in the order in which its calls name them."""
        new = {change.job.id: change.job for change in self.changes if change.old is None}
        if not new:
            return
        for op in self.step.ops:
            for job_id in submitted(op):
                if job_id in new:
                    yield new.pop(job_id)


class Facts:
    """All that the invariants ask of a history again and again, worked out once.

    `runs` gives, for a lease's token, which run of its job it was granted for: leases are told apart by the order of
    their grants, not by what the engine calls them.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.moments = list(_moments(history))
        self.submits: dict[str, NewJob] = {}
        self.born_at: dict[str, tuple[int, int]] = {}
        self.runs: dict[tuple[str, int, str], int] = {}
        for moment in self.moments:
            self._take(moment)

    def run_of(self, lease: Any) -> int:
        """The run that a lease was granted for; 0 when no grant of it is known."""
        return self.runs.get((lease.job_id, lease.epoch, lease.token), 0)

    def _take(self, moment: Moment) -> None:
        for op in moment.step.ops:
            if op.call.method == "submit":
                for new in op.call.args[0]:
                    self.submits.setdefault(new.id, new)
            elif op.call.method == "lease" and op.is_ok:
                for held in op.answer:
                    self._grant(held, moment)
        alone = len(moment.step.ops) == 1
        for order, job in enumerate(moment.born()):
            self.born_at[job.id] = (moment.step.number, order if alone else 0)

    def _grant(self, held: Assignment, moment: Moment) -> None:
        old = moment.before.jobs.get(held.job_id)
        new = moment.step.look.jobs.get(held.job_id)
        run = new.runs if new is not None and new.token == held.lease.token else (old.runs if old else 0) + 1
        self.runs[held.job_id, held.lease.epoch, held.lease.token] = run


def submitted(op: Op) -> list[str]:
    """The ids that a call would make jobs of."""
    if op.call.method == "submit":
        return [new.id for new in op.call.args[0]]
    if op.call.method == "retry":
        return [new_id for _, new_id in op.call.args[1]]
    return []


def _moments(history: History) -> Iterator[Moment]:
    before = Look(0, {})
    for step in history.steps:
        now = step.look.jobs
        changes = [
            Change(before.jobs.get(job_id), job) for job_id, job in now.items() if before.jobs.get(job_id) != job
        ]
        changes += [Change(job, None) for job_id, job in before.jobs.items() if job_id not in now]
        op = step.only
        yield Moment(before, step, changes, op if op is not None and op.is_ok and not step.event else None)
        before = step.look

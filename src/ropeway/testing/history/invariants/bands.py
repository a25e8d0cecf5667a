"""Whose turn it is in a queue, as the invariants work it out: by rank in a priority, and by turns among several."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.domain.rank import Priority, band_of, next_band, passed_over
from ropeway.testing.history.facts import Facts, Moment

__all__ = ["Passed", "in_line", "place_of", "turns", "with_passed"]

Passed = dict[str, Mapping[Priority, int] | None]
"""How often each band of a queue was passed over. None: leases at the same time took turns that nobody can tell."""

_BANDS = tuple(reversed(Priority))


def with_passed(facts: Facts) -> Iterator[tuple[Moment, Passed]]:
    """Each moment, with what was known before it."""
    passed: Passed = {}
    for moment in facts.moments:
        yield moment, passed
        _follow(facts, moment, passed)


def in_line(job: Job, queue: str) -> bool:
    """Whether a job waits in this queue's line: one that is parked does not."""
    return job.queue == queue and job.state is State.queued and job.parked is None


def place_of(facts: Facts, job: Job) -> tuple[str, float, tuple[int, int]]:
    """Jobs that came in one burst may have the same: their order is not ours to tell."""
    return job.queue, job.rank, facts.born_at[job.id]


def turns(
    facts: Facts, moment: Moment, queue: str, passed: Mapping[Priority, int], most: int
) -> tuple[list[Job], Mapping[Priority, int]]:
    """Who is leased in this moment, so many at most, and how often each band is passed over then.

    Whoever was parked in it, or came too late, had a turn and did not start.
    """
    lines: dict[Priority, deque[Job]] = {band: deque() for band in _BANDS}
    waiting = [job for job in moment.before.jobs.values() if in_line(job, queue)]
    for job in sorted(waiting, key=lambda job: place_of(facts, job)):
        lines[band_of(job.rank)].append(job)
    leased: list[Job] = []
    while len(leased) < most and (open_ := [band for band in _BANDS if lines[band]]):
        band = next_band(open_, passed)
        job = lines[band].popleft()
        if not _stays_out(job, moment):
            leased.append(job)
            passed = passed_over([other for other in _BANDS if lines[other] or other is band], passed, band)
    return leased, passed


def _stays_out(job: Job, moment: Moment) -> bool:
    after = moment.step.look.jobs.get(job.id)
    late = job.queue_deadline_ms is not None and job.queue_deadline_ms <= moment.step.at_ms
    return late or (after is not None and after.parked is not None)


def _follow(facts: Facts, moment: Moment, passed: Passed) -> None:
    """Take in the turns that were taken."""
    started = [new for old, new in moment.changes if new is not None and new.runs > (old.runs if old else 0)]
    op = moment.step.only
    alone = op is not None and op.call.method == "lease"
    for queue in {job.queue for job in started}:
        known = passed.get(queue, {})
        count = sum(job.queue == queue for job in started)
        if alone and known is not None:
            _, passed[queue] = turns(facts, moment, queue, known, count)
            continue
        touched = sum(change.job.queue == queue for change in moment.changes)
        emptied = not any(in_line(job, queue) for job in moment.step.look.jobs.values())
        passed[queue] = {} if alone and emptied and touched == count else None

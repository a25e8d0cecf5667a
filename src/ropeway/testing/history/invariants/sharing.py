"""What must be true of content keys: the same content runs once while its job serves, and its sharers are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ropeway.domain.cache import serves
from ropeway.domain.job import Job, NewJob, Receipt
from ropeway.testing.history.facts import Facts, Moment
from ropeway.testing.history.record import Violation

__all__ = ["content_runs_once", "sharers_are_counted"]

_STEPS = {"submit": range(4), "cancel": (0, -1)}
"""By how many the sharers of a job may change in one call; by none in any other."""

Key = tuple[str, str]
"""A tenant and its content key."""


class Held(NamedTuple):
    """A key's job, and for how long it serves."""

    job_id: str
    ttl_ms: int


def content_runs_once(facts: Facts) -> Iterator[Violation]:
    """J1: a submit is answered with the job that holds its key if that serves, else makes the job that holds it."""
    held: dict[Key, Held] = {}
    unsure: set[Key] = set()
    for moment in facts.moments:
        if moment.only is not None and moment.only.call.method == "submit":
            yield from _answers(moment, held, unsure)
        else:
            _follow(facts, moment, held, unsure)


def sharers_are_counted(facts: Facts) -> Iterator[Violation]:
    """J2: a job counts those who came to share it and takes away those who cancelled, and nobody else does."""
    for moment in facts.moments:
        op = moment.only
        if op is None:
            continue
        for old, new in moment.changes:
            step = 0 if old is None or new is None else new.joined - old.joined
            if step not in _STEPS.get(op.call.method, (0,)):
                yield Violation("J2", moment.step.number, f"{op.call.method} changed the sharers by {step:+}")
        if op.call.method == "submit":
            yield from _joins(moment)


def _joins(moment: Moment) -> Iterator[Violation]:
    """Each submit that is answered with a live job of another's is counted there, once."""
    assert moment.only is not None
    came: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    for new, answer in moment.only.batch:
        if not (isinstance(answer, Receipt) and answer.cached) or answer.job.state.terminal:
            continue
        before = moment.before.jobs.get(answer.job.id)
        known = new.id in (before.sharers or "").split() if before is not None else False
        if not known and (answer.job.id, new.id) not in seen:
            came[answer.job.id] += 1
        seen.add((answer.job.id, new.id))
    for job_id, count in came.items():
        before, after = moment.before.jobs.get(job_id), moment.step.look.jobs.get(job_id)
        was = 0 if before is None else before.joined
        if after is not None and after.joined != was + count:
            text = f"{count} came to share {job_id}, which counts {after.joined} after {was}"
            yield Violation("J2", moment.step.number, text)


def _answers(moment: Moment, held: dict[Key, Held], unsure: set[Key]) -> Iterator[Violation]:
    """One submit alone, item by item: what each had to be answered with is known."""
    assert moment.only is not None
    jobs = dict(moment.before.jobs)
    for new, answer in moment.only.batch:
        if new.cache is None or (isinstance(answer, Receipt) and answer.replayed):
            _take_in(jobs, answer)
            continue
        key = (new.tenant, new.cache.key)
        server = _server(jobs, held.get(key), new, moment.step.at_ms)
        if isinstance(answer, Receipt):
            told = answer.job.id if answer.cached else None
            if key not in unsure and told != (None if server is None else server.id):
                expected = "a job of its own" if server is None else server.id
                yield Violation("J1", moment.step.number, f"{new.id} was due {expected}, and got {answer.job.id}")
            if not answer.cached:
                held[key] = Held(answer.job.id, new.cache.ttl_ms)
                unsure.discard(key)
        _take_in(jobs, answer)


def _take_in(jobs: dict[str, Job], answer: object) -> None:
    if isinstance(answer, Receipt):
        jobs[answer.job.id] = answer.job


def _server(jobs: dict[str, Job], held: Held | None, new: NewJob, at_ms: int) -> Job | None:
    """The job that the submit must be answered with."""
    known = None if held is None else jobs.get(held.job_id)
    if held is None or known is None or not serves(known, held.ttl_ms, new, at_ms):
        return None
    return known


def _follow(facts: Facts, moment: Moment, held: dict[Key, Held], unsure: set[Key]) -> None:
    """Take in the keys that jobs took in a step of which not all is known."""
    keyed = [facts.submits[job.id] for job in moment.born() if job.id in facts.submits]
    taken = Counter((new.tenant, new.cache.key) for new in keyed if new.cache is not None)
    for new in keyed:
        if new.cache is not None:
            key = (new.tenant, new.cache.key)
            held[key] = Held(new.id, new.cache.ttl_ms)
            if taken[key] > 1:
                unsure.add(key)

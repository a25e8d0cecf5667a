"""The one way to change jobs that does not hurry: read, changed by the domain's rules, written if nobody wrote since.

The hot changes (submit, lease, append, the plain commit) have scripts of their own; everything else comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ropeway.domain.change import Change
from ropeway.domain.errors import EngineUnavailable, JobNotFound, LeaseLost
from ropeway.domain.event import OUTPUT_RESET, OUTPUT_RESUMED, STARTED, Event
from ropeway.domain.job import Job, NewJob
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import taken_by
from ropeway.engines.redis.accounts import account
from ropeway.engines.redis.lane import chunks
from ropeway.engines.redis.link import Arg
from ropeway.engines.redis.partition import Partition
from ropeway.engines.redis.rows import (
    Stored,
    differences,
    events_text,
    job_from,
    keeps,
    options_text,
    past_from,
    past_text,
)

__all__ = ["Rule", "change", "load"]

TRIES = 50  # a job that is written more often than this while we look would be written 10,000 times a second
_OPENINGS = (STARTED, OUTPUT_RESET, OUTPUT_RESUMED)

Answer = Job | JobNotFound | LeaseLost | State | None

Rule = Callable[[Job | None, int], Change | Answer]
"""What becomes of a job at this time (ms): a change, or an answer when there is nothing to change."""


async def load(partition: Partition, job_ids: Sequence[str], *, inputs: bool = True) -> list[Stored | None]:
    """The jobs as they stand, None for those that are not there."""
    found: list[Stored | None] = []
    for part in chunks(job_ids):
        reply = await partition.call("get", "1" if inputs else "0", *part)
        found += [job_from(job_id, flat) for job_id, flat in zip(part, reply.values, strict=True)]
    return found


async def change(partition: Partition, job_ids: Sequence[str], rule: Rule, *, inputs: bool = False) -> list[Answer]:
    """Change each job by the rule: the job as it stands afterwards, or the rule's answer."""
    answers: dict[str, Answer] = {}
    for part in chunks(list(dict.fromkeys(job_ids))):
        left: Sequence[str] = part
        for _ in range(TRIES):
            left = await _try(partition, left, rule, answers, inputs)
            if not left:
                break
        else:
            raise EngineUnavailable(f"{left[0]} is written too often to be changed")
    return [answers[job_id] for job_id in job_ids]


async def _try(
    partition: Partition, job_ids: Sequence[str], rule: Rule, answers: dict[str, Answer], inputs: bool
) -> list[str]:
    """One round. Those whose job was written between our look and our write."""
    reply = await partition.call("get", "1" if inputs else "0", *job_ids)
    args: list[Arg] = []
    moved: list[tuple[str, Job]] = []
    for job_id, flat in zip(job_ids, reply.values, strict=True):
        stored = job_from(job_id, flat)
        outcome = rule(None if stored is None else stored.job, reply.now_ms)
        if isinstance(outcome, Change):
            assert stored is not None, "a rule changed a job that is not there"
            args += _arguments(stored, outcome)
            moved.append((job_id, outcome.job))
        else:
            answers[job_id] = outcome
    if not moved:
        return []
    done = (await partition.call("move", *args)).values
    answers.update(entry for entry, was_done in zip(moved, done, strict=True) if was_done)
    return [job_id for (job_id, _), was_done in zip(moved, done, strict=True) if not was_done]


def _arguments(stored: Stored, outcome: Change) -> list[Arg]:
    changed, dropped = differences(stored.job, outcome.job)
    openings = [event for event in outcome.events if event.type in _OPENINGS]
    if openings:
        changed += ("past", past_text([*past_from(stored.job.id, stored.past), *openings]))
    entries = [_entry(event) for event in outcome.events if event.type not in _OPENINGS]
    return [
        stored.job.id,
        stored.job.version,
        len(changed),
        *changed,
        len(dropped),
        *dropped,
        len(entries),
        *(value for entry in entries for value in entry),
        *_delivery(outcome.delivery),
        len(told := account(outcome.used)),
        *told,
        len(given := _given(stored.job, outcome)),
        *given,
        repr(outcome.owed) if outcome.owed else "",
    ]


def _delivery(new: NewJob | None) -> tuple[Arg, ...]:
    """How many arguments it is, and those."""
    if new is None:
        return (0,)
    options = new.options
    row = (new.id, new.queue, new.tenant, new.task, int(new.priority), repr(options.cost), new.input)
    return (10, *row, options_text(options), *keeps(options))


def _given(old: Job, outcome: Change) -> list[str]:
    """What an attempt that ends gives back to the bucket of each of its job's limits."""
    job = outcome.job
    if old.state is not State.running or job.state is State.running:
        return []
    took = (taken_by(limit, job.last_outcome or "lost", outcome.used) for limit in job.options.limits)
    return [
        repr(0.0 if some is None else limit.amount - some) for limit, some in zip(job.options.limits, took, strict=True)
    ]


def _entry(event: Event) -> tuple[Arg, ...]:
    return str(event.cursor), event.attempt, event.at_ms, events_text([(event.type, event.data)])

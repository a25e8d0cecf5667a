"""What must be true of jobs: none lost, none made twice, none told to a stranger."""

from __future__ import annotations

from collections.abc import Iterator

from ropeway.domain.errors import IdempotencyKeyReused, JobNotFound
from ropeway.domain.job import Job, Receipt
from ropeway.domain.lifecycle import State
from ropeway.testing.history.facts import Facts, Moment
from ropeway.testing.history.record import Op, Step, Violation

__all__ = [
    "accepted_is_kept",
    "all_ends",
    "dead_letters_are_kept",
    "ends_are_told",
    "keys_make_one_job",
    "strangers_learn_nothing",
]

Claims = dict[tuple[str, str], tuple[str, str]]
"""(tenant, key) -> (the job that it made, the body's fingerprint)."""


def accepted_is_kept(facts: Facts) -> Iterator[Violation]:
    """I1: what was accepted is there until it has ended and is purged, or its retention is over."""
    for moment in facts.moments:
        for op in moment.step.ops:
            for job_id in _accepted(op):
                if job_id not in moment.step.look.jobs:
                    yield Violation("I1", moment.step.number, f"{job_id} was accepted and is not there")
        for job in _lost(moment):
            if job.state is not State.failed:
                yield Violation("I1", moment.step.number, f"{job.id}, {job.state}, is gone")


def dead_letters_are_kept(facts: Facts) -> Iterator[Violation]:
    """I8: a failed job keeps its input and its error, and stays until it is deleted by call or policy."""
    for moment in facts.moments:
        for job in _lost(moment):
            if job.state is State.failed:
                yield Violation("I8", moment.step.number, f"the dead letter {job.id} is gone")
        for change in moment.changes:
            job = change.job
            if change.new is None or job.state is not State.failed:
                continue
            submit = facts.submits.get(job.id)
            if job.error is None or (submit is not None and job.input != submit.input):
                yield Violation("I8", moment.step.number, f"the dead letter {job.id} lost its input or error")


def keys_make_one_job(facts: Facts) -> Iterator[Violation]:
    """I2: a tenant's key makes one job, from one body; the same body is answered with it, another one is refused."""
    claims: Claims = {}
    unsure: set[tuple[str, str]] = set()
    for moment in facts.moments:
        for job in moment.born():
            new = facts.submits.get(job.id)
            if new is None or new.idempotency_key is None:
                continue
            maker, _ = claims.setdefault((new.tenant, new.idempotency_key), (new.id, new.fingerprint))
            if maker != new.id:
                yield Violation("I2", moment.step.number, f"key {new.idempotency_key} made {maker} and {new.id}")
        _learn_shared(moment, claims, unsure)
        for op in moment.step.ops:
            if op.call.method == "submit" and op.is_ok:
                yield from _key_answers(op, moment.step, claims, unsure - claims.keys())


def strangers_learn_nothing(facts: Facts) -> Iterator[Violation]:
    """I9: another tenant's job is answered as one that does not exist, and `find` gives a tenant its own jobs."""
    owners = {change.job.id: change.job.tenant for moment in facts.moments for change in moment.changes}
    for moment in facts.moments:
        for op in moment.step.ops:
            if op.is_ok and _told_a_stranger(op, owners):
                text = f"{op.call} by a stranger was answered {op.answer!r}"
                yield Violation("I9", moment.step.number, text)


def ends_are_told(facts: Facts) -> Iterator[Violation]:
    """I12: who is to be told of a job's end has a delivery from the very step that ended it, and none before."""
    for moment in facts.moments:
        look = moment.step.look
        for job in look.jobs.values():
            hook = job.options.webhook
            if hook is None:
                continue
            wanted = job.state.terminal and f"job.{job.state}" in hook.events
            if wanted != (job.id in look.deliveries):
                text = "nobody will tell of it" if wanted else "it is told of"
                yield Violation("I12", moment.step.number, f"{job.id} is {job.state}, and {text}")


def all_ends(facts: Facts) -> Iterator[Violation]:
    """L1: once faults stop and a worker serves all queues, every job comes to an end."""
    end = facts.moments[-1].step
    for job in end.look.jobs.values():
        if not job.state.terminal:
            yield Violation("L1", end.number, f"{job.id} is still {job.state}")


def _accepted(op: Op) -> list[str]:
    if op.call.method not in ("submit", "retry") or not op.is_ok:
        return []
    return [answer.job.id for _, answer in op.batch if isinstance(answer, Receipt)]


def _lost(moment: Moment) -> Iterator[Job]:
    """Jobs that are gone, and that nothing in this step may have deleted."""
    for old, new in moment.changes:
        if new is None and old is not None and not (old.state.terminal and _deleted(old, moment.step)):
            yield old


def _deleted(job: Job, step: Step) -> bool:
    """Whether this step may have deleted an ended job: it was purged by its owner, or is past its retention."""
    for op in step.ops:
        if op.call.method == "purge" and op.call.args[0] == job.tenant and job.id in op.call.args[1]:
            return True
        if op.call.method == "prune" and job.expires_at_ms is not None and job.expires_at_ms <= step.at_ms:
            return True
    return False


def _learn_shared(moment: Moment, claims: Claims, unsure: set[tuple[str, str]]) -> None:
    """Take in the keys that were claimed for a job of another's; `unsure` are those that may have been."""
    for op in moment.step.ops:
        for new, answer in op.batch if op.call.method == "submit" else ():
            key = (new.tenant, new.idempotency_key or "")
            if new.idempotency_key is None or key in claims:
                continue
            if isinstance(answer, Receipt) and (answer.cached or key in unsure):
                claims[key] = (answer.job.id, new.fingerprint)
            elif answer is None and new.cache is not None:
                unsure.add(key)


def _key_answers(op: Op, step: Step, claims: Claims, unsure: set[tuple[str, str]]) -> Iterator[Violation]:
    for new, answer in op.batch:
        if new.idempotency_key is None or (new.tenant, new.idempotency_key) in unsure:
            continue
        known = claims.get((new.tenant, new.idempotency_key))
        if isinstance(answer, IdempotencyKeyReused):
            gone = known is not None and known[0] not in step.look.jobs
            if known is None or (known[1] == new.fingerprint and not gone):
                yield Violation("I2", step.number, f"{new.id}: key {new.idempotency_key} was refused to its own body")
        elif isinstance(answer, Receipt) and answer.job.id != new.id and known != (answer.job.id, new.fingerprint):
            yield Violation("I2", step.number, f"{new.id}: key {new.idempotency_key} was answered {answer.job.id}")


def _told_a_stranger(op: Op, owners: dict[str, str]) -> bool:
    if op.call.method == "find":
        return any(job.tenant != op.call.args[0].tenant for job in op.answer.jobs)
    if op.call.method in ("read", "position"):
        tenant, job_id = op.call.args[:2]
        return owners.get(job_id, tenant) != tenant and op.answer is not None
    if op.call.method in ("get", "cancel", "wake", "purge", "retry"):
        tenant = op.call.args[0]
        return any(
            owners.get(item if isinstance(item, str) else item[0], tenant) != tenant
            and not (answer is None and op.call.method == "get")
            and not isinstance(answer, JobNotFound)
            for item, answer in op.batch
        )
    return False

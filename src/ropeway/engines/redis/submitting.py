"""Submit and retry: jobs as the script takes them, and what it answers as receipts and refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ropeway.domain.errors import IdempotencyKeyReused, JobNotFound, JobNotRetryable, QueueFull, TooManyQueued
from ropeway.domain.job import CLAIM_MS, Job, JobOptions, NewJob, Receipt, job_of, renewed
from ropeway.domain.rank import Priority
from ropeway.engines.base import Refusal
from ropeway.engines.redis.link import Arg
from ropeway.engines.redis.partition import Partition
from ropeway.engines.redis.rows import job_from, keeps, limits_text, options_text

__all__ = ["again", "size", "submit"]

_REFUSED: dict[str, Callable[[str, int], Refusal]] = {
    "own": TooManyQueued,
    "full": QueueFull,
    "reused": lambda queue, depth: IdempotencyKeyReused(),
    "gone": lambda queue, depth: IdempotencyKeyReused("the job that this idempotency key made is gone"),
    "taken": lambda queue, depth: IdempotencyKeyReused("this job id is taken"),
}

_encode = msgspec.json.Encoder().encode


async def submit(partition: Partition, jobs: Sequence[NewJob], wait: tuple[int, int] | None) -> list[Receipt | Refusal]:
    """`Submission.submit`, of at most as many jobs as one script may take."""
    reply = await partition.call("submit", *_arguments(jobs), wait=wait)
    answers = reply.values
    return [_answer(job, answers[2 * n], int(answers[2 * n + 1]), reply.now_ms) for n, job in enumerate(jobs)]


def size(job: NewJob) -> int:
    """About the bytes that a job takes in a script's arguments."""
    return len(job.input) + 200


def again(job: Job | None, new_id: str) -> NewJob | JobNotFound | JobNotRetryable:
    """The job that runs a terminal one again."""
    if job is None:
        return JobNotFound()
    if not job.state.terminal:
        return JobNotRetryable(f"{job.id} is {job.state}; only a job that has ended can be retried")
    return renewed(job, new_id)


def _arguments(jobs: Sequence[NewJob]) -> list[Arg]:
    """The jobs of a call are nearly always of few kinds: what those have in common goes once."""
    places: dict[tuple[str, str, str, Priority, int], int] = {}
    kinds: list[Arg] = []
    args: list[Arg] = []
    for job in jobs:
        kind = (job.queue, job.tenant, job.task, job.priority, id(job.options))
        place = places.get(kind)
        if place is None:
            place = places[kind] = len(places) + 1
            kinds += _kind(job)
        args += (place, job.id, job.input, _rest(job))
    return [CLAIM_MS, len(places), *kinds, *args]


def _kind(job: NewJob) -> tuple[Arg, ...]:
    options = job.options
    return (
        job.queue,
        job.tenant,
        job.task,
        int(job.priority),
        repr(options.cost),
        options_text(options),
        *keeps(options),
    )


def _rest(job: NewJob) -> str:
    """What few jobs have."""
    options = job.options
    plain = job.delay_ms <= 0 and options.queue_timeout_s is None and not _ends_apart(options)
    if plain and job.retry_of is None and job.idempotency_key is None and job.max_own is None and job.cache is None:
        return ""
    rest = _rest_of_options(options)
    if job.delay_ms > 0:
        rest["delay"] = job.delay_ms
    if job.max_own is not None:
        rest["most"] = job.max_own
    if job.retry_of is not None:
        rest["retry_of"] = job.retry_of
    if job.idempotency_key is not None:
        rest["key"] = job.idempotency_key
        rest["fingerprint"] = job.fingerprint
    if job.cache is not None:
        rest |= {"cache": job.cache.key, "ttl": job.cache.ttl_ms}
        if job.cache.fresh:
            rest["fresh"] = True
    return _encode(rest).decode()


def _rest_of_options(options: JobOptions) -> dict[str, Any]:
    rest: dict[str, Any] = {}
    if options.queue_timeout_s is not None:
        rest["wait"] = round(options.queue_timeout_s * 1000)
    if _ends_apart(options):
        rest["hook"] = True
    if options.limits:
        rest["limits"] = limits_text(options.limits)
    return rest


def _ends_apart(options: JobOptions) -> bool:
    """Whether the job's end does more than most jobs': makes a delivery, frees a limit, or moves its tenant's tag."""
    return options.webhook is not None or bool(options.limits) or options.cost_measure is not None


def _answer(new: NewJob, answer: Any, depth: int, now_ms: int) -> Receipt | Refusal:
    if isinstance(answer, list):
        fields = dict(zip(answer[::2], answer[1::2], strict=True))
        stored = job_from(fields["id"], answer)
        assert stored is not None
        cached = "cached" in fields
        return Receipt(stored.job, replayed=not cached, depth=depth, cached=cached)
    if answer in _REFUSED:
        return _REFUSED[answer](new.queue, depth)
    return Receipt(job_of(new, float(answer), now_ms), False, depth)

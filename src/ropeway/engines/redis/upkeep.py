"""Sessions and what is lost with them, cancel, queues' policies, and time passing; of one partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import msgspec

from ropeway.domain.change import Change, stopped, woken, worker_lost
from ropeway.domain.errors import JobLive, JobNotFound
from ropeway.domain.job import Job
from ropeway.domain.lease import Renewal
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange, QueuePolicy
from ropeway.domain.worker import WorkerCard
from ropeway.engines.base import Promotion
from ropeway.engines.redis.keeping import change_kept
from ropeway.engines.redis.lane import MAX_ITEMS, chunks
from ropeway.engines.redis.link import Arg
from ropeway.engines.redis.moving import change
from ropeway.engines.redis.partition import Partition
from ropeway.engines.redis.reading import policy_from, stats
from ropeway.engines.redis.working import fail_late

__all__ = [
    "Stop",
    "announce",
    "cancel",
    "close",
    "elect",
    "promote",
    "prune",
    "purge",
    "renew",
    "rescue",
    "set_queue",
    "wake",
]

_encode = msgspec.json.Encoder().encode


class Stop(NamedTuple):
    """How jobs are to be cancelled. `word` is always there: a lost reply has the cancel made again."""

    reason: str | None
    word: str
    for_all: bool


async def announce(partition: Partition, worker: WorkerCard) -> None:
    """`Execution.announce`."""
    await partition.call("session", worker.session, worker.ttl_ms, _encode(worker).decode())


async def renew(partition: Partition, session: str, ttl_ms: int) -> Renewal:
    """`Execution.renew`."""
    alive, asked = (await partition.call("session", session, max(ttl_ms, 1), "")).values
    return Renewal(bool(alive), tuple(sorted(asked)))


async def close(partition: Partition, session: str) -> None:
    """`Execution.close`: the session ends first, so that it leases no more; then all that it held is rescued."""
    if not (await partition.call("session", session, 0, "")).values[0]:
        return
    while await _rescue(partition, session, MAX_ITEMS):
        pass


async def rescue(partition: Partition, limit: int) -> int:
    """`Upkeep.rescue`."""
    rescued = 0
    while rescued < limit and (some := await _rescue(partition, "", min(limit - rescued, MAX_ITEMS))):
        rescued += some
    if rescued == limit:
        await partition.call("lost", "", 0)  # forgets the sessions that are empty now
    return rescued


async def _rescue(partition: Partition, session: str, limit: int) -> int:
    """End the attempts of an expired session, or of any ('')."""
    ids = (await partition.call("lost", session, limit)).values[0]
    ended = await change_kept(partition, ids, _lost)
    return sum(job is not None for job in ended)


def _lost(job: Job | None, now_ms: int) -> Change | None:
    return worker_lost(job, now_ms) if job is not None and job.state is State.running else None


async def cancel(partition: Partition, tenant: str, job_ids: Sequence[str], wish: Stop) -> list[Job | JobNotFound]:
    """`Submission.cancel`."""

    def rule(job: Job | None, now_ms: int) -> Change | Job | JobNotFound:
        if job is None or job.tenant != tenant:
            return JobNotFound()
        return stopped(job, wish.reason, now_ms, wish.word, wish.for_all) or job

    return cast(list[Job | JobNotFound], await change_kept(partition, job_ids, rule, inputs=True))


async def wake(partition: Partition, tenant: str, job_ids: Sequence[str]) -> list[Job | JobNotFound]:
    """`Submission.wake`."""

    def rule(job: Job | None, now_ms: int) -> Change | Job | JobNotFound:
        if job is None or job.tenant != tenant:
            return JobNotFound()
        return woken(job, now_ms) or job

    return cast(list[Job | JobNotFound], await change(partition, job_ids, rule, inputs=True))


async def purge(partition: Partition, tenant: str, job_ids: Sequence[str]) -> list[JobNotFound | JobLive | None]:
    """`Submission.purge`. Not repeated after a lost reply: it would tell that the job was never there."""
    answers: list[JobNotFound | JobLive | None] = []
    for part in chunks(job_ids):
        told = (await partition.call("remove", tenant, *part, repeat=False)).values
        answers += [_purged(job_id, answer) for job_id, answer in zip(part, told, strict=True)]
    return answers


def _purged(job_id: str, answer: str) -> JobNotFound | JobLive | None:
    if answer == "gone":
        return None
    return JobNotFound() if answer == "none" else JobLive(f"{job_id} is {answer}; cancel it first")


async def set_queue(partition: Partition, changes: Sequence[QueueChange]) -> list[QueuePolicy]:
    """`Submission.set_queue`. All are checked before any is made: one out of range stops the batch."""
    policies = {told.queue: told.policy or QueuePolicy(told.queue) for told in await stats(partition, None)}
    args: list[Arg] = []
    for each in changes:
        policies[each.queue] = each.applied_to(policies.get(each.queue) or QueuePolicy(each.queue))
        fields = _policy_fields(each)
        args += (each.queue, len(fields), *fields)
    told = {
        each.queue: values for each, values in zip(changes, (await partition.call("queue", *args)).values, strict=True)
    }
    return [policy_from(each.queue, told[each.queue]) for each in changes]


def _policy_fields(change: QueueChange) -> list[str]:
    """The fields to set, each with its value; '' drops one."""
    fields: list[str] = []
    if change.max_depth is not msgspec.UNSET:
        fields += ("max_depth", str(change.max_depth))
    if change.max_depth_per_tenant is not msgspec.UNSET:
        fields += ("max_depth_per_tenant", str(change.max_depth_per_tenant or ""))
    if change.weights is not msgspec.UNSET:
        fields += ("weights", _encode(change.weights).decode() if change.weights else "")
    if change.paused is not msgspec.UNSET:
        fields += ("paused", "1" if change.paused else "")
    if change.max_running is not msgspec.UNSET:
        fields += ("max_running", str(change.max_running or ""))
    return fields


async def promote(partition: Partition, limit: int) -> Promotion:
    """`Upkeep.promote`."""
    moved = 0
    while True:
        wanted = min(limit - moved, MAX_ITEMS)
        queued, late, next_at = (await partition.call("promote", wanted)).values
        failed = await fail_late(partition, late) if late else 0
        moved += queued + failed
        if moved >= limit or not queued + failed:
            return Promotion(moved, int(next_at) if next_at else None)


async def prune(partition: Partition, limit: int, keep_bytes: int | None = None) -> int:
    """`Upkeep.prune`, and what would go next for as long as the ended jobs come to more than `keep_bytes`."""
    pruned = 0
    while pruned < limit:
        wanted = min(limit - pruned, MAX_ITEMS)
        some: int = (await partition.call("remove", "", wanted, "" if keep_bytes is None else keep_bytes)).values[0]
        pruned += some
        if some < wanted:
            break
    return pruned


async def elect(partition: Partition, duty: str, holder: str, ttl_ms: int) -> bool:
    """`Upkeep.elect`."""
    return bool((await partition.call("elect", duty, holder, ttl_ms)).values[0])

"""What workers do with jobs: lease, append, commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ropeway.domain.change import ENDS, Change, committed, overdue, repeated
from ropeway.domain.errors import LeaseLost
from ropeway.domain.event import OUTPUT_DELTA, PROGRESS, USAGE, Cursor
from ropeway.domain.ids import RandomBytes, lease_token
from ropeway.domain.job import Job
from ropeway.domain.lease import Append, Appended, Assignment, Commit, Lease, LeaseRequest
from ropeway.domain.lifecycle import State
from ropeway.domain.log import opening_count
from ropeway.engines.redis.accounts import usage_text
from ropeway.engines.redis.lane import MAX_ITEMS
from ropeway.engines.redis.link import Arg
from ropeway.engines.redis.moving import change
from ropeway.engines.redis.partition import Partition
from ropeway.engines.redis.rows import events_from, events_text, options_from

__all__ = ["append", "append_size", "commit", "commit_size", "fail_late", "lease"]


async def lease(partition: Partition, request: LeaseRequest, random: RandomBytes) -> list[Assignment]:
    """`Execution.lease`. Those met past their queue deadline fail, and others take their place."""
    leased: list[Assignment] = []
    while len(leased) < request.limit:
        wanted = min(request.limit - len(leased), MAX_ITEMS)
        reply = await partition.call(
            "lease", request.session, request.worker, wanted, f"{lease_token(random)}.", *request.queues
        )
        late, *found = reply.values
        leased += [_assignment(found[n : n + 7], reply.now_ms) for n in range(0, len(found), 7)]
        if late:
            await fail_late(partition, late)
        elif len(found) < 7 * wanted:
            break
    return leased


def _assignment(values: list[Any], now_ms: int) -> Assignment:
    job_id, head, input_, options, epoch, token, past = values
    queue, tenant, task, _, _, _, created, *_ = head.split(" ")
    attempt, crashes, runs = past.split(" ") if past else (1, 0, 1)
    return Assignment(
        lease=Lease(job_id, int(epoch), token),
        tenant=tenant,
        queue=queue,
        task=task,
        input=input_,
        attempt=int(attempt),
        crashes=int(crashes),
        next_seq=opening_count(int(runs)),
        created_at_ms=int(created),
        started_at_ms=now_ms,
        options=options_from(options),
    )


async def fail_late(partition: Partition, job_ids: Sequence[str]) -> int:
    """Fail queued jobs that waited longer than they may; how many there were."""

    def rule(job: Job | None, now_ms: int) -> Change | None:
        if job is None or job.state is not State.queued or (job.queue_deadline_ms or now_ms + 1) > now_ms:
            return None
        return overdue(job, now_ms)

    return sum(job is not None for job in await change(partition, job_ids, rule))


async def append(partition: Partition, batch: Sequence[Append]) -> list[Appended | LeaseLost]:
    """`Execution.append`, of at most as many as one script may take."""
    args: list[Arg] = []
    for each in batch:
        args += _append_arguments(each)
    reply = await partition.call("append", *args)
    return [await _appended(partition, each, answer) for each, answer in zip(batch, reply.values, strict=True)]


def append_size(each: Append) -> int:
    """About the bytes that an append takes in a script's arguments."""
    return sum(len(data) for _, data in each.drafts) + 200


def _append_arguments(each: Append) -> tuple[Arg, ...]:
    told = dict(each.drafts)  # the last of each type
    return (
        each.lease.job_id,
        each.lease.token,
        each.expected_seq,
        len(each.drafts),
        events_text(each.drafts),
        told.get(PROGRESS, ""),
        told.get(USAGE, ""),
        "1" if OUTPUT_DELTA in told else "",
    )


async def _appended(partition: Partition, each: Append, answer: Any) -> Appended | LeaseLost:
    if answer == "lost":
        return LeaseLost()
    if len(answer) == 2 or await _is_written(partition, each):
        return Appended(int(answer[0]), bool(answer[1]))
    return LeaseLost(f"event {each.expected_seq} of {each.lease.job_id} is not the next: that is {answer[0]}")


async def _is_written(partition: Partition, each: Append) -> bool:
    """Whether these very events are written already: the reply to them was lost."""
    first = Cursor(each.lease.epoch, each.expected_seq)
    reply = await partition.call("read", each.lease.job_id, *first, len(each.drafts) + 1)
    log = events_from(each.lease.job_id, reply.values[1])
    written = [(event.type, event.data) for event in log if event.cursor >= first]
    return bool(each.drafts) and written[: len(each.drafts)] == list(each.drafts)


async def commit(partition: Partition, batch: Sequence[Commit]) -> list[State | LeaseLost]:
    """`Execution.commit`, of at most as many as one script may take."""
    ids = [each.lease.job_id for each in batch]
    if len(set(ids)) != len(ids):
        return [answer for each in batch for answer in await commit(partition, [each])]
    ending = [each for each in batch if each.outcome.kind in ENDS]
    told = zip((each.lease.job_id for each in ending), await _end(partition, ending), strict=True)
    answers = {job_id: answer for job_id, answer in told if answer is not None}
    answers.update(
        await _move(partition, {each.lease.job_id: each for each in batch if each.lease.job_id not in answers})
    )
    return [answers[job_id] for job_id in ids]


def commit_size(each: Commit) -> int:
    """About the bytes that a commit takes in a script's arguments."""
    outcome = each.outcome
    return len(outcome.output or "") + len(outcome.error or "") + len(outcome.usage or "") + 100


async def _end(partition: Partition, batch: Sequence[Commit]) -> list[State | LeaseLost | None]:
    """Commits that end their jobs, in one script; None for those that leave a delivery too, which it does not make."""
    if not batch:
        return []
    args: list[Arg] = []
    for each in batch:
        outcome = each.outcome
        args += (each.lease.job_id, each.lease.token, outcome.kind)
        args += ("" if text is None else f"+{text}" for text in (outcome.output, outcome.error))
        args.append(usage_text(outcome.usage))
    reply = await partition.call("commit", *args)
    return [_ended(answer) for answer in reply.values]


def _ended(answer: str) -> State | LeaseLost | None:
    if answer == "lost":
        return LeaseLost()
    return None if answer == "told" else State(answer)


async def _move(partition: Partition, batch: dict[str, Commit]) -> dict[str, State | LeaseLost]:
    """Commits after which the job is to run again, or has no attempt left, or of whose end somebody is to be told."""

    def rule(job: Job | None, now_ms: int) -> Change | State | LeaseLost:
        # job.id tells which: a rule is asked of one job at a time
        each = batch[job.id] if job is not None else None
        if job is None or each is None:
            return LeaseLost()
        if job.state is not State.running or job.token != each.lease.token:
            return repeated(job, each.lease, each.outcome)
        return committed(job, each.outcome, now_ms)

    found = cast(list[Job | State | LeaseLost], await change(partition, list(batch), rule))
    answers = (answer.state if isinstance(answer, Job) else answer for answer in found)
    return dict(zip(batch, answers, strict=True))

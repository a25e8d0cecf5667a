"""What anyone may look at: jobs, their logs, counts, workers; of one partition."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncIterator, Sequence

import msgspec

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.job import Job, JobQuery
from ropeway.domain.lifecycle import State
from ropeway.domain.log import EventPage, LogQuery, page
from ropeway.domain.queue import QueuePolicy, QueueStats
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import JobPage
from ropeway.engines.redis.address import MAX_PARTITIONS
from ropeway.engines.redis.lane import MAX_ITEMS, chunks
from ropeway.engines.redis.moving import load
from ropeway.engines.redis.partition import Partition
from ropeway.engines.redis.rows import Stored, events_from, job_from, past_from

__all__ = ["events", "find", "get", "joined", "policy_from", "position", "stats", "tasks", "workers"]

READS = 32  # logs in one script, as many as a gateway asks for at once (serving/rounds.py)
_FAR = 2**62  # a cursor may hold more than a stream's ids do
_COUNTED = ("scheduled", "queued", "running", "succeeded", "failed", "cancelled")

_decode_card = msgspec.json.Decoder(WorkerCard).decode
_decode_task = msgspec.json.Decoder(TaskCard).decode
_decode_weights = msgspec.json.Decoder(dict[str, float]).decode


async def get(partition: Partition, tenant: str, job_ids: Sequence[str]) -> list[Job | None]:
    """`Reading.get`."""
    found = await load(partition, job_ids)
    return [stored.job if stored is not None and stored.job.tenant == tenant else None for stored in found]


async def events(partition: Partition, queries: Sequence[LogQuery]) -> list[EventPage | None]:
    """`Reading.read_many`: the rows and their events of one moment."""
    pages: list[EventPage | None] = []
    for part in chunks(queries, READS):
        asked: list[str | int] = []
        for _, job_id, after, limit in part:
            asked += (job_id, min(after.epoch, _FAR), min(after.seq, _FAR), limit + 1)
        values = (await partition.call("read", *asked)).values
        pages += [_page(*found) for found in zip(part, values[::2], values[1::2], strict=True)]
    return pages


def _page(query: LogQuery, row: Sequence[str], entries: Sequence[tuple[str, list[str]]]) -> EventPage | None:
    tenant, job_id, after, limit = query
    stored = job_from(job_id, row)
    if stored is None or stored.job.tenant != tenant:
        return None
    found = events_from(job_id, entries)
    if stored.past:
        found = sorted([*past_from(job_id, stored.past), *found], key=lambda event: event.cursor)
    later = [event for event in found if event.cursor > after]
    return page(stored.job, later[:limit], after, limit)


async def position(partition: Partition, tenant: str, job_id: str, limit: int) -> int | None:
    """`Reading.position`."""
    place = int((await partition.call("position", tenant, job_id)).values[0])
    return place if 0 <= place <= limit else None


async def stats(partition: Partition, tenant: str | None) -> list[QueueStats]:
    """`Reading.stats`. The oldest is exact while no more than 256 tenants wait in a band."""
    values = (await partition.call("stats", tenant or "")).values
    return [
        QueueStats(
            queue,
            oldest_queued_at_ms=int(oldest) if oldest else None,
            policy=policy_from(queue, policy),
            **dict(zip(_COUNTED, counts, strict=True)),
        )
        for queue, policy, counts, oldest in zip(*(values[n::4] for n in range(4)), strict=True)
    ]


def policy_from(queue: str, values: Sequence[str]) -> QueuePolicy:
    """A policy as the scripts tell it."""
    max_depth, max_own, weights, paused, max_running = values
    return QueuePolicy(
        queue,
        int(max_depth),
        int(max_own) if max_own else None,
        _decode_weights(weights) if weights else {},
        paused == "1",
        int(max_running) if max_running else None,
    )


async def workers(partition: Partition) -> list[WorkerCard]:
    """`Reading.workers`, in the order in which they came."""
    values = (await partition.call("workers")).values
    rows = sorted(zip(*(values[n::5] for n in range(5)), strict=True), key=lambda row: int(row[0]))
    return [
        msgspec.structs.replace(
            _decode_card(card), started_at_ms=int(started), expires_at_ms=int(expires), running=int(held)
        )
        for _, card, started, expires, held in rows
    ]


async def tasks(partition: Partition) -> list[TaskCard]:
    """`Reading.tasks`."""
    cards = [_decode_task(card) for card in (await partition.call("tasks")).values]
    return sorted(cards, key=lambda task: task.name)


async def find(partition: Partition, query: JobQuery, place: int) -> list[Stored]:
    """The first `query.limit + 1` jobs of a partition, which is the `place`th, that fit, newest first."""
    before = _before(query.before, place)
    found: list[Stored] = []
    async for stored in _candidates(partition, query, before):
        if _fits(stored.job, query):
            found.append(stored)
            if len(found) > query.limit:
                break
    return found


def joined(found: Sequence[Sequence[Stored]], limit: int) -> JobPage:
    """A page of what all the partitions found, newest first; of jobs of one number the last partition's."""
    lines = ([(stored.number, place, stored) for stored in some] for place, some in enumerate(found))
    newest = heapq.nlargest(limit + 1, itertools.chain.from_iterable(lines), key=lambda entry: entry[:2])
    kept = newest[:limit]
    cursor = str(kept[-1][0] * MAX_PARTITIONS + kept[-1][1]) if len(newest) > len(kept) else None
    return JobPage(tuple(stored.job for _, _, stored in kept), cursor)


def _before(cursor: str | None, place: int) -> int | None:
    """Below which number a partition goes on after a page. Raises InvalidRequest for a cursor that no page gave."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidRequest(f"{cursor[:40]!r} is no cursor of a list", param="cursor")
    number, last = divmod(int(cursor), MAX_PARTITIONS)
    return number + 1 if place < last else number


async def _candidates(partition: Partition, query: JobQuery, before: int | None) -> AsyncIterator[Stored]:
    """Jobs that may fit, newest first: out of the lists of the states asked for when they are short, else of all."""
    states = " ".join(sorted(query.states))
    if query.states and not {State.succeeded, State.cancelled}.intersection(query.states):
        reply = await partition.call("list", query.tenant, states, query.queue or "")
        if reply.values[0] == "listed":
            tickets = sorted({t for t in reply.values[1] if before is None or int(t[:13], 16) < before}, reverse=True)
            for start in range(0, len(tickets), MAX_ITEMS):
                for stored in await load(partition, [ticket[13:] for ticket in tickets[start : start + MAX_ITEMS]]):
                    if stored is not None:
                        yield stored
            return
    while True:
        numbers_and_ids = (await partition.call("all", query.tenant, before or 0, MAX_ITEMS)).values
        for stored in await load(partition, numbers_and_ids[1::2]):
            if stored is not None:
                yield stored
        if len(numbers_and_ids) < 2 * MAX_ITEMS:
            return
        before = int(numbers_and_ids[-2])


def _fits(job: Job, query: JobQuery) -> bool:
    return (
        job.tenant == query.tenant
        and (not query.states or job.state in query.states)
        and query.queue in (None, job.queue)
        and query.task in (None, job.task)
        and (query.tag is None or query.tag in job.options.tags)
    )

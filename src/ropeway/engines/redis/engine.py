"""The Redis engine: the protocol's methods, each handed to the partition, or partitions, that hold what it is about."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from datetime import date

import msgspec

from ropeway.domain.clock import Clock
from ropeway.domain.errors import (
    EngineUnavailable,
    JobLive,
    JobNotFound,
    JobNotRetryable,
    LeaseLost,
    OutcomeUnknown,
)
from ropeway.domain.event import Cursor
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.domain.job import Job, JobQuery, NewJob, Receipt
from ropeway.domain.lease import Append, Appended, Assignment, Commit, LeaseRequest, Renewal
from ropeway.domain.lifecycle import State
from ropeway.domain.log import EventPage, LogQuery
from ropeway.domain.queue import QueueChange, QueuePolicy, QueueStats
from ropeway.domain.usage import UsageRow
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import EngineInfo, JobPage, Promotion, Refusal, Renewer
from ropeway.engines.hints import Listener
from ropeway.engines.redis import reading, submitting, upkeep, working
from ropeway.engines.redis.accounts import joined_usage, usage
from ropeway.engines.redis.address import Address, parse
from ropeway.engines.redis.claiming import free_claims, submit_under_claim
from ropeway.engines.redis.fleet import PROVE_S, Failpoint, Fleet
from ropeway.engines.redis.lane import chunks
from ropeway.engines.redis.limiting import LimitsRole
from ropeway.engines.redis.records import RecordsRole
from ropeway.engines.redis.renewer import RedisRenewer, merged

__all__ = ["RedisEngine"]

log = logging.getLogger("ropeway.engine")

STEADY_S = 5.0  # after an outage nobody is rescued for so long: who lives renews first, and is no crash

_encode = msgspec.json.Encoder().encode


class RedisEngine(RecordsRole, LimitsRole):
    """Jobs on a Redis or Valkey server, or spread over the partitions of a cluster.

    The durability class is what the server proves (see `proof`), at the start and again every `prove_s` seconds. Use an
    engine in the loop that opened it.
    """

    def __init__(
        self,
        url: str,
        clock: Clock | None = None,
        random: RandomBytes = system_random,
        *,
        failpoint: Failpoint | None = None,
        prove_s: float = PROVE_S,
    ) -> None:
        super().__init__(random)
        self._address: Address = parse(url)
        self._clock = clock
        self._failpoint = failpoint
        self._prove_s = prove_s

    @property
    def info(self) -> EngineInfo:
        """As the servers have proved it so far."""
        if not hasattr(self, "_fleet"):
            return EngineInfo("redis", self._address.masked, self._address.durability, "")
        proof = self._fleet.proof
        version = f"{proof.server} {proof.version}"
        return EngineInfo("redis", self._address.masked, proof.durability, version, self._fleet.warnings)

    async def open(self) -> None:
        """Reach every server and have it prove what it is. Raises EngineUnavailable, with what to do about it."""
        if self._is_open:
            return
        self._fleet = Fleet(self._address, self._clock, self._failpoint, self._prove_s)
        await self._fleet.open()
        self._is_open = True

    async def shut(self) -> None:
        if self._is_open:
            self._is_open = False
            await self._fleet.shut()

    # -- Submission

    async def submit(self, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
        if not jobs:
            await self._everywhere(lambda partition: partition.call("room"))
            return []
        keyed = [job for job in jobs if self._is_apart(job)]
        if not keyed:
            return await self._spread(jobs, lambda job: job.id, lambda p, part: p.submits.do(part))
        return [(await self._submit_one(job)) for job in jobs]  # in order: one may repeat another's key

    async def cancel(
        self,
        tenant: str,
        job_ids: Sequence[str],
        reason: str | None,
        word: str | None = None,
        for_all: bool = False,
    ) -> list[Job | JobNotFound]:
        wish = upkeep.Stop(reason, word or self._random(8).hex(), for_all)
        return await self._spread(job_ids, _itself, lambda p, part: upkeep.cancel(p.partition, tenant, part, wish))

    async def wake(self, tenant: str, job_ids: Sequence[str]) -> list[Job | JobNotFound]:
        return await self._spread(job_ids, _itself, lambda p, part: upkeep.wake(p.partition, tenant, part))

    async def retry(
        self, tenant: str, jobs: Sequence[tuple[str, str]]
    ) -> list[Receipt | JobNotFound | JobNotRetryable | Refusal]:
        if not {old for old, _ in jobs}.isdisjoint(new for _, new in jobs):
            return [answer for job in jobs for answer in await self._retry(tenant, [job])]
        return await self._retry(tenant, jobs)

    async def purge(self, tenant: str, job_ids: Sequence[str]) -> list[JobNotFound | JobLive | None]:
        return await self._spread(job_ids, _itself, lambda p, part: upkeep.purge(p.partition, tenant, part))

    async def set_queue(self, changes: Sequence[QueueChange]) -> list[QueuePolicy]:
        return (await self._everywhere(lambda partition: upkeep.set_queue(partition, changes)))[0]

    # -- Execution

    async def publish(self, tasks: Sequence[TaskCard]) -> None:
        for part in chunks(tasks):
            await self._first.call("tasks", *(text for task in part for text in (task.name, _encode(task).decode())))

    async def announce(self, worker: WorkerCard) -> None:
        await self._everywhere(lambda partition: upkeep.announce(partition, worker))

    async def lease(self, request: LeaseRequest) -> list[Assignment]:
        leased: list[Assignment] = []
        away: EngineUnavailable | None = None
        for partition in self._by_turns("lease"):
            left = request.limit - len(leased)
            if left > 0:
                wish = msgspec.structs.replace(request, limit=left)
                try:
                    leased += await working.lease(partition, wish, self._random)
                except OutcomeUnknown:
                    raise  # the caller gives up its session, and with it what the other partitions have given
                except EngineUnavailable as error:
                    away = error  # the other partitions' work goes on, and what they gave is not to be forgotten
        if away is not None and not leased:
            raise away
        return leased

    async def renew(self, session: str, ttl_ms: int) -> Renewal:
        return merged(await self._everywhere(lambda partition: upkeep.renew(partition, session, ttl_ms)))

    async def append(self, batch: Sequence[Append]) -> list[Appended | LeaseLost]:
        return await self._spread(batch, lambda each: each.lease.job_id, lambda p, part: p.appends.do(part))

    async def commit(self, batch: Sequence[Commit]) -> list[State | LeaseLost]:
        return await self._spread(batch, lambda each: each.lease.job_id, lambda p, part: p.commits.do(part))

    async def close(self, session: str) -> None:
        await self._everywhere(lambda partition: upkeep.close(partition, session))

    def renewer(self) -> Renewer:
        return RedisRenewer(self._address, self._clock)

    # -- Reading

    async def get(self, tenant: str, job_ids: Sequence[str]) -> list[Job | None]:
        return await self._spread(job_ids, _itself, lambda p, part: reading.get(p.partition, tenant, part))

    async def find(self, query: JobQuery) -> JobPage:
        asked = (reading.find(partition, query, place) for place, partition in enumerate(self.partitions))
        return reading.joined(await asyncio.gather(*asked), query.limit)

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        return (await self.read_many([LogQuery(tenant, job_id, after, limit)]))[0]

    async def read_many(self, queries: Sequence[LogQuery]) -> list[EventPage | None]:
        return await self._spread(
            queries, lambda query: query.job_id, lambda p, part: reading.events(p.partition, part)
        )

    async def position(self, tenant: str, job_id: str, limit: int = 10_000) -> int | None:
        place = await reading.position(self._home(job_id), tenant, job_id, limit)
        # In several partitions the lines go forward side by side, each as fast as the others.
        far = None if place is None else place * len(self._open.homes)
        return far if far is None or far <= limit else None

    async def stats(self, tenant: str | None = None) -> list[QueueStats]:
        return summed(await self._everywhere(lambda partition: reading.stats(partition, tenant)))

    async def tasks(self) -> list[TaskCard]:
        return await reading.tasks(self._first)

    async def workers(self) -> list[WorkerCard]:
        told = await self._everywhere(reading.workers)
        held = [{card.session: card.running for card in cards} for cards in told]
        return [
            msgspec.structs.replace(card, running=sum(running.get(card.session, 0) for running in held))
            for card in told[0]
        ]

    async def usage(self, tenant: str, since: date, until: date) -> list[UsageRow]:
        return joined_usage(await self._everywhere(lambda partition: usage(partition, tenant, since, until)))

    def listen(self, *topics: str) -> Listener:
        return self._open.board.listen(*topics)

    async def tell(self, *topics: str) -> None:
        await self._open.homes[0].hearing.tell(topics)

    # -- Upkeep

    async def promote(self, limit: int) -> Promotion:
        moved = 0
        times: list[int] = []
        for partition in self._by_turns("promote"):
            promotion = await upkeep.promote(partition, limit - moved)
            moved += promotion.moved
            if promotion.next_at_ms is not None:
                times.append(promotion.next_at_ms)
        return Promotion(moved, min(times, default=None))

    async def rescue(self, limit: int) -> int:
        if self._open.steady_for_s() < STEADY_S:
            return 0
        return await self._within(limit, "rescue", upkeep.rescue)

    async def prune(self, limit: int) -> int:
        if len(self.partitions) > 1:
            await self._everywhere(lambda partition: free_claims(partition, self._home, limit))
        await self._prune_records(limit)
        keep_bytes = self.keep_bytes
        return await self._within(limit, "prune", lambda partition, left: upkeep.prune(partition, left, keep_bytes))

    async def elect(self, duty: str, holder: str, ttl_ms: int) -> bool:
        return await upkeep.elect(self._first, duty, holder, ttl_ms)

    # -- keys that live apart from their jobs

    def _is_apart(self, job: NewJob) -> bool:
        """Whether the job's idempotency key may live in another partition than the job that it made."""
        return job.idempotency_key is not None and len(self._open.homes) > 1

    async def _submit_one(self, job: NewJob) -> Receipt | Refusal:
        async def submit(new: NewJob) -> Receipt | Refusal:
            return (await self._open.homes[self._place(new.id)].submits.do([new]))[0]

        if not self._is_apart(job):
            return await submit(job)
        keys = self._open.homes[self._place(_claim(job))].partition
        return await submit_under_claim(job, keys, self._home, submit, self._random)

    async def _retry(
        self, tenant: str, jobs: Sequence[tuple[str, str]]
    ) -> list[Receipt | JobNotFound | JobNotRetryable | Refusal]:
        old = await self.get(tenant, [job_id for job_id, _ in jobs])
        found = [submitting.again(job, new_id) for job, (_, new_id) in zip(old, jobs, strict=True)]
        receipts = iter(await self.submit([job for job in found if isinstance(job, NewJob)]))
        return [next(receipts) if isinstance(job, NewJob) else job for job in found]


def summed(told: Sequence[Sequence[QueueStats]]) -> list[QueueStats]:
    """The counts of all partitions together."""
    if len(told) == 1:
        return list(told[0])
    by_queue: dict[str, list[QueueStats]] = {}
    for stats in itertools.chain.from_iterable(told):
        by_queue.setdefault(stats.queue, []).append(stats)
    return [_sum(same) for _, same in sorted(by_queue.items())]


def _sum(same: Sequence[QueueStats]) -> QueueStats:
    times = [stats.oldest_queued_at_ms for stats in same if stats.oldest_queued_at_ms is not None]
    return msgspec.structs.replace(
        same[0],
        oldest_queued_at_ms=min(times, default=None),
        **{state.value: sum(getattr(stats, state.value) for stats in same) for state in State},
    )


def _claim(job: NewJob) -> str:
    return f"{job.tenant} {job.idempotency_key}"


def _itself(job_id: str) -> str:
    return job_id

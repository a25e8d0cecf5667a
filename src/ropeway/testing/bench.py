"""An engine on a manual clock with short words for what tests do all the time: submit, lease, append, commit, read."""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

from ropeway.domain.event import START, Cursor, Event
from ropeway.domain.job import Job, NewJob, Receipt
from ropeway.domain.lease import Append, Appended, Assignment, Commit, LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueStats
from ropeway.domain.worker import WorkerCard
from ropeway.engines.base import Engine
from ropeway.testing.clock import ManualClock
from ropeway.testing.harness import DurableHarness, Harness
from ropeway.testing.random import seeded_random

__all__ = ["QUEUE", "SESSION", "TENANT", "Bench", "as_", "durable"]

TENANT = "acme"
QUEUE = "chat"
SESSION = "s1"
TTL_MS = 10_000

T = TypeVar("T")


def as_(kind: type[T], value: object) -> T:
    """`value`, which must be of this kind: the answers of a batch are values of several."""
    assert isinstance(value, kind), f"expected {kind.__name__}, got {value!r}"
    return value


def durable(harness: Harness) -> DurableHarness:
    """`harness`, which must be one whose stores outlive their engines."""
    assert isinstance(harness, DurableHarness), f"{harness.name} keeps nothing"
    return harness


class Bench:
    """One engine under test. Everything defaults to one tenant, one queue and one worker's session."""

    def __init__(self, harness: Harness, engine: Engine, clock: ManualClock) -> None:
        self.harness = harness
        self.engine = engine
        self.clock = clock
        self._numbers = itertools.count(1)

    @classmethod
    async def start(cls, harness: Harness, seed: int | str = 1) -> Bench:
        """A bench with a fresh engine, and one session open."""
        clock = ManualClock()
        bench = cls(harness, await harness.start(clock, seeded_random(seed)), clock)
        await bench.announce()
        return bench

    async def stop(self) -> None:
        await self.harness.stop(self.engine)

    async def reopen(self) -> None:
        """Shut the engine cleanly and open another on its store."""
        self.engine = await durable(self.harness).reopen(self.engine)

    # -- Submission

    def new(self, job_id: str | None = None, **fields: Any) -> NewJob:
        """A job to submit, with a new id unless given one."""
        given = {"tenant": TENANT, "queue": QUEUE, "task": "echo", "input": '{"n":1}', **fields}
        return NewJob(job_id or f"job_{next(self._numbers):03}", **given)

    async def submit(self, *jobs: NewJob) -> list[Job]:
        """Submit them all; every one must be accepted."""
        return [as_(Receipt, answer).job for answer in await self.engine.submit(jobs)]

    async def add(self, job_id: str | None = None, **fields: Any) -> Job:
        """Submit one."""
        return (await self.submit(self.new(job_id, **fields)))[0]

    async def cancel(self, job_id: str, reason: str | None = None) -> Job:
        return as_(Job, (await self.engine.cancel(TENANT, [job_id], reason))[0])

    async def wake(self, job_id: str) -> Job:
        return as_(Job, (await self.engine.wake(TENANT, [job_id]))[0])

    # -- Execution

    async def announce(self, session: str = SESSION, ttl_ms: int = TTL_MS, **fields: Any) -> None:
        await self.engine.announce(WorkerCard(session, fields.pop("name", session), (QUEUE,), ttl_ms=ttl_ms, **fields))

    async def lease(
        self, limit: int = 1, *, session: str = SESSION, queues: tuple[str, ...] = (QUEUE,)
    ) -> list[Assignment]:
        return await self.engine.lease(LeaseRequest(session, f"worker-{session}", queues, limit))

    async def lease_one(self, session: str = SESSION) -> Assignment:
        """The next job; there must be one."""
        leased = await self.lease(session=session)
        assert len(leased) == 1, "a queued job was not leased"
        return leased[0]

    async def start_job(self, job_id: str | None = None, session: str = SESSION, **fields: Any) -> Assignment:
        """Submit a job and lease it."""
        await self.add(job_id, **fields)
        return await self.lease_one(session)

    async def append(self, held: Assignment, seq: int, *drafts: tuple[str, str]) -> Appended:
        """Append events, which must be accepted."""
        return as_(Appended, (await self.engine.append([Append(held.lease, seq, drafts)]))[0])

    async def commit(self, held: Assignment, kind: str = "succeeded", **fields: Any) -> State:
        """Commit an outcome, which must be accepted."""
        return as_(State, (await self.engine.commit([Commit(held.lease, Outcome(kind, **fields))]))[0])

    async def finish(self, job_id: str | None = None, kind: str = "succeeded", **fields: Any) -> Job:
        """Submit, lease and commit a job; its row."""
        held = await self.start_job(job_id, **fields)
        await self.commit(held, kind)
        return await self.job(held.job_id)

    async def expire(self, session: str = SESSION, ttl_ms: int = TTL_MS) -> int:
        """Let the session's time pass unrenewed and rescue what it held; open it anew. How many were rescued."""
        self.clock.advance(ttl_ms)
        rescued = await self.engine.rescue(1000)
        await self.announce(session)
        return rescued

    # -- Reading

    async def job(self, job_id: str, tenant: str = TENANT) -> Job:
        """The job's row; there must be one."""
        return as_(Job, (await self.engine.get(tenant, [job_id]))[0])

    async def state(self, job_id: str) -> State:
        return (await self.job(job_id)).state

    async def states(self, *job_ids: str) -> list[State | None]:
        return [None if job is None else job.state for job in await self.engine.get(TENANT, job_ids)]

    async def log(self, job_id: str, after: Cursor = START, limit: int = 1000) -> list[Event]:
        """A job's events after a cursor; the job must be there."""
        page = await self.engine.read(TENANT, job_id, after, limit)
        assert page is not None, f"{job_id} is not there"
        return list(page.events)

    async def log_types(self, job_id: str) -> list[str]:
        return [event.type for event in await self.log(job_id)]

    async def stats(self, queue: str = QUEUE, tenant: str | None = None) -> QueueStats:
        """Counts of one queue; there must be such a queue."""
        found = [stats for stats in await self.engine.stats(tenant) if stats.queue == queue]
        assert len(found) == 1, f"queue {queue} is not in the stats"
        return found[0]

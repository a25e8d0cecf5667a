"""When the jobs of a silent worker are given to others, and what it is told when it wakes up."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from ropeway.domain.errors import LeaseLost
from ropeway.domain.event import OUTPUT_DELTA, RETRYING, START, STARTED
from ropeway.domain.job import DEFAULT_TENANT, JobOptions, NewJob
from ropeway.domain.lease import Append, Assignment, Commit, Lease, LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.worker import WorkerCard
from ropeway.engines.base import Engine
from ropeway.engines.redis import RedisEngine
from ropeway.runtime.upkeep import Upkeep
from ropeway.testing import ManualClock
from servers import shared_server

LEASE_MS = 9_000
SECOND_MS = 1_000

_prefixes = itertools.count(1)


class Stage:
    """A store on a clock of its own, and two workers: one that falls silent, and one that lives."""

    def __init__(self, engine: Engine, clock: ManualClock) -> None:
        self.engine = engine
        self.clock = clock

    async def start(self, job_id: str) -> Lease:
        """A job that the silent worker has begun."""
        await self.engine.submit([NewJob(job_id, DEFAULT_TENANT, "q", "t", "1", options=JobOptions(max_crashes=3))])
        await self.engine.announce(WorkerCard("silent", "silent", ("q",), ttl_ms=LEASE_MS))
        (assignment,) = await self.lease("silent")
        return assignment.lease

    async def lease(self, session: str) -> list[Assignment]:
        return await self.engine.lease(LeaseRequest(session, session, ("q",), 10))

    async def beat(self, upkeep: Upkeep) -> None:
        """The living worker: renews, does its upkeep, and sleeps until that is due again."""
        await self.engine.announce(WorkerCard("alive", "alive", ("q",), ttl_ms=LEASE_MS))
        self.clock.advance(s=max(await upkeep.tick(), 0.001))


@pytest.fixture(name="stage")
async def make_stage() -> AsyncIterator[Stage]:
    clock = ManualClock()
    engine = RedisEngine(f"{shared_server().url}?prefix=r{next(_prefixes)}", clock)
    await engine.open()
    yield Stage(engine, clock)
    await engine.shut()


async def test_a_silent_workers_jobs_run_elsewhere_a_second_after_its_lease_at_the_latest(stage: Stage) -> None:
    """Even when it was the one that did the upkeep: before its lease is over another has taken that on."""
    silent, alive = (Upkeep(stage.engine, name, stage.clock) for name in ("silent", "alive"))
    await stage.start("job_1")
    silent_from_ms = stage.clock.now_ms()
    await silent.tick()
    assert silent.leads
    while not (leased := await stage.lease("alive")):
        assert stage.clock.now_ms() <= silent_from_ms + LEASE_MS + SECOND_MS, "its jobs wait longer than they may"
        await stage.beat(alive)
    assert stage.clock.now_ms() >= silent_from_ms + LEASE_MS, "it might have lived"
    assert (leased[0].lease.job_id, leased[0].attempt, leased[0].crashes) == ("job_1", 2, 1)


async def test_one_that_wakes_after_three_leases_is_fenced_in_every_write(stage: Stage) -> None:
    """It can neither append, nor commit, nor renew, nor lease; and the log holds nothing of what it tried."""
    old = await stage.start("job_1")
    stage.clock.advance(3 * LEASE_MS)
    assert await stage.engine.rescue(10) == 1
    await stage.engine.announce(WorkerCard("alive", "alive", ("q",), ttl_ms=LEASE_MS))
    (taken,) = await stage.lease("alive")

    assert not (await stage.engine.renew("silent", LEASE_MS)).alive
    assert await stage.lease("silent") == []
    for lease in (old, Lease("job_1", taken.lease.epoch, old.token)):
        (appended,) = await stage.engine.append([Append(lease, taken.next_seq, ((OUTPUT_DELTA, '{"delta":"x"}'),))])
        assert isinstance(appended, LeaseLost)
        for kind in ("succeeded", "failed", "retry", "release"):
            (answer,) = await stage.engine.commit([Commit(lease, Outcome(kind, output="0"))])
            assert isinstance(answer, LeaseLost), kind

    assert await stage.engine.commit([Commit(taken.lease, Outcome("succeeded", output="1"))]) == [State.succeeded]
    (job,) = await stage.engine.get(DEFAULT_TENANT, ["job_1"])
    page = await stage.engine.read(DEFAULT_TENANT, "job_1", START, 100)
    assert job is not None and page is not None
    assert (job.output, job.worker) == ("1", "alive")
    assert OUTPUT_DELTA not in [event.type for event in page.events]


async def test_a_job_is_not_taken_from_a_worker_that_was_only_late(stage: Stage) -> None:
    """One that renews in the last millisecond of its lease keeps everything."""
    lease = await stage.start("job_1")
    stage.clock.advance(LEASE_MS - 1)
    assert await stage.engine.rescue(10) == 0
    assert (await stage.engine.renew("silent", LEASE_MS)).alive
    stage.clock.advance(LEASE_MS - 1)
    assert await stage.engine.rescue(10) == 0
    assert await stage.engine.commit([Commit(lease, Outcome("succeeded", output="1"))]) == [State.succeeded]


async def test_a_job_whose_workers_die_ends_when_its_crashes_are_spent(stage: Stage) -> None:
    """As often as `max_crashes`, each told in its log; a neighbour that was lost with it once goes on and ends well."""
    await stage.start("poison")
    await stage.engine.submit([NewJob("neighbour", DEFAULT_TENANT, "q", "t", "1", options=JobOptions(max_crashes=3))])
    assert len(await stage.lease("silent")) == 1
    for lost in (2, 1, 1):
        stage.clock.advance(LEASE_MS)
        assert await stage.engine.rescue(10) == lost
        await stage.engine.announce(WorkerCard("silent", "silent", ("q",), ttl_ms=LEASE_MS))
        for assignment in await stage.lease("silent"):
            if assignment.lease.job_id == "neighbour":
                done = await stage.engine.commit([Commit(assignment.lease, Outcome("succeeded", output="1"))])
                assert done == [State.succeeded]
    poison, neighbour = await stage.engine.get(DEFAULT_TENANT, ["poison", "neighbour"])
    assert poison is not None and neighbour is not None
    assert (poison.state, poison.crashes, poison.attempt) == (State.failed, 3, 3)
    assert (neighbour.state, neighbour.crashes, neighbour.attempt) == (State.succeeded, 1, 2)
    page = await stage.engine.read(DEFAULT_TENANT, "poison", START, 100)
    assert page is not None
    acts = [event.type for event in page.events if event.type in (STARTED, RETRYING)]
    assert acts == [STARTED, RETRYING, STARTED, RETRYING, STARTED]

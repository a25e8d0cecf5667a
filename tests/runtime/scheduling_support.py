"""What the tests of schedules share: an engine on a manual clock, and leaders that are moved by hand."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from harnesses import HARNESSES
from ropeway.blobs import Files
from ropeway.domain.firing import checked_rules, next_time
from ropeway.domain.job import DEFAULT_TENANT, Job, JobQuery
from ropeway.domain.lease import Commit, LeaseRequest, Outcome
from ropeway.domain.schedule import Plan, Schedule
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import Engine
from ropeway.engines.schedules import Held, Schedules
from ropeway.runtime.scheduling import Scheduling
from ropeway.testing import ManualClock, seeded_random
from ropeway.testing.harness import Harness

__all__ = ["ON_EACH", "ON_MEMORY", "Rig", "rig"]

ON_EACH = [harness for harness in HARNESSES if harness.name in ("memory", "sqlite", "valkey", "spread")]
ON_MEMORY = HARNESSES[:1]

MINUTE_S = 60


class Rig:
    """One store. Time stands still unless the test moves it."""

    def __init__(self, engine: Engine, clock: ManualClock) -> None:
        self.engine = engine
        self.clock = clock
        self.schedules = Schedules(engine)
        self._uids = itertools.count(1)

    def leader(
        self, engine: Engine | None = None, *, clock: ManualClock | None = None, files: Files | None = None
    ) -> Scheduling:
        """A worker that thinks it leads."""
        return Scheduling(engine or self.engine, files, lambda: True, clock or self.clock)

    async def announce(self, *tasks: TaskCard, schedules: Sequence[str] = ()) -> None:
        """Publish tasks, and have one worker that knows them."""
        await self.engine.publish(tasks)
        names = tuple(task.name for task in tasks)
        card = WorkerCard("s1", "hand", ("default", "other"), names, ttl_ms=10**10, schedules=tuple(schedules))
        await self.engine.announce(card)

    async def make(
        self,
        name: str = "s",
        *,
        plan: Plan | None = None,
        tenant: str = DEFAULT_TENANT,
        declared: bool = False,
        **told: Any,
    ) -> Schedule:
        """A schedule of each minute, unless the test says otherwise."""
        settings: Any = told if "cron" in told else {"interval": MINUTE_S, **told}
        rules = checked_rules(settings)
        now = self.clock.now_ms()
        made = Schedule(
            tenant=tenant,
            name=name,
            uid=f"uid{next(self._uids)}",
            timing=rules.timing,
            plan=plan or Plan("work"),
            created_at_ms=now,
            updated_at_ms=now,
            catch_up=rules.catch_up,
            grace_ms=rules.grace_ms,
            overlap=rules.overlap,
            declared=declared,
            next_at_ms=next_time(rules.timing, now, now),
        )
        assert await self.schedules.make(made)
        return made

    async def held(self, name: str = "s", tenant: str = DEFAULT_TENANT) -> Held:
        return await self.schedules.get(tenant, name)

    async def now(self, name: str = "s", tenant: str = DEFAULT_TENANT) -> Schedule:
        """The schedule as it stands."""
        return (await self.held(name, tenant)).schedule

    async def jobs(self, tenant: str = DEFAULT_TENANT) -> list[Job]:
        """All jobs, the oldest first."""
        page = await self.engine.find(JobQuery(tenant, limit=500))
        return sorted(page.jobs, key=lambda job: job.id)

    async def minutes(self, tenant: str = DEFAULT_TENANT) -> list[int]:
        """For which minutes since the epoch of the test's clock there are jobs, by their marks."""
        found = [job.options.metadata["scheduled_for"] for job in await self.jobs(tenant)]
        return [int(text[14:16]) for text in found]

    async def finish(self, job_id: str) -> None:
        """Run this job, which must be the next."""
        (held,) = await self.engine.lease(LeaseRequest("s1", "hand", ("default", "other"), 1))
        assert held.job_id == job_id
        await self.engine.commit([Commit(held.lease, Outcome("succeeded", output="1"))])

    async def forget(self, job_id: str) -> None:
        """Delete a job that has ended."""
        assert await self.engine.purge(DEFAULT_TENANT, [job_id]) == [None]

    async def roll_back(self, held: Held) -> None:
        """Put a schedule's record back to what it was, as a store that lost its last writes has it."""
        current = await self.held(held.schedule.name, held.schedule.tenant)
        assert await self.schedules.store([Held(held.schedule, current.version)]) == [True]


@asynccontextmanager
async def rig(harness: Harness, *, work: TaskCard | None = None) -> AsyncIterator[Rig]:
    """A rig on a new store, with a worker that knows the task `work`."""
    clock = ManualClock(1_767_225_600_000)  # 2026-01-01T00:00Z: minutes are easy to read
    engine = await harness.start(clock, seeded_random("engine"))
    try:
        made = Rig(engine, clock)
        await made.announce(work or TaskCard("work"))
        yield made
    finally:
        await harness.stop(engine)

"""What the runtime's tests share: an engine on a manual clock with a worker on it, and waits for named conditions."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from ropeway.blobs import BlobStore
from ropeway.domain.errors import JobError
from ropeway.domain.event import START, Event
from ropeway.domain.job import DEFAULT_TENANT, Job, NewJob
from ropeway.domain.lease import Assignment, Lease
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine
from ropeway.engines.memory import MemoryEngine
from ropeway.runtime import App, Worker, WorkerOptions
from ropeway.runtime.attempt import Attempt, Session
from ropeway.runtime.crew import Crew
from ropeway.testing import FaultyEngine, ManualClock, seeded_random
from ropeway.testing.faults import Plan

__all__ = ["PATIENCE_S", "Stage", "an_assignment", "an_attempt", "eventually", "stage"]

PATIENCE_S = 20.0  # how long a condition may take on a loaded machine before the test fails
LONG_TTL_MS = 86_400_000  # the keeper's own beats stay out of tests that do not ask for them


class Stage:
    """One engine, one application, and the workers that a test starts. Time stands still unless the test moves it."""

    def __init__(self, app: App, engine: Engine, clock: ManualClock, blobs: BlobStore | None = None) -> None:
        self.app = app
        self._blobs = blobs
        self.engine = engine
        self.clock = clock
        self.workers: list[Worker] = []
        self.runs: list[asyncio.Task[None]] = []
        self._numbers = itertools.count(1)

    async def work(self, **options: Any) -> Worker:
        """Start a worker, and wait until it leases."""
        settings: dict[str, Any] = {
            "name": f"worker-{len(self.workers) + 1}",
            "session_ttl_ms": LONG_TTL_MS,
            "upkeep": False,
            **options,
        }
        worker = Worker(
            self.app,
            self.engine,
            WorkerOptions(**settings),
            clock=self.clock,
            random=seeded_random(f"worker-{len(self.workers)}"),
            jitter=lambda: 0.0,
            blobs=self._blobs,
        )
        self.workers.append(worker)
        self.runs.append(asyncio.create_task(worker.run()))
        await worker.started()
        return worker

    @property
    def crew(self) -> Crew:
        """The parts of the first worker."""
        crew = self.workers[0]._crew
        assert crew is not None
        return crew

    async def submit(self, task: str, /, delay_ms: int = 0, **input_fields: Any) -> str:
        """Submit a job of a declared task; its id."""
        return await self.submit_to(self.app.tasks[task].card.queue, task, delay_ms, **input_fields)

    async def submit_to(self, queue: str, task: str, /, delay_ms: int = 0, **input_fields: Any) -> str:
        """The same, to another queue than the task's own."""
        card = self.app.tasks[task].card
        job = NewJob(
            f"job_{next(self._numbers):04}",
            DEFAULT_TENANT,
            queue,
            task,
            msgspec.json.encode(input_fields).decode(),
            card.priority,
            delay_ms,
            card.options,
        )
        await self.engine.submit([job])
        return job.id

    async def job(self, job_id: str) -> Job:
        job = (await self.engine.get(DEFAULT_TENANT, [job_id]))[0]
        assert job is not None
        return job

    async def ended(self, job_id: str) -> Job:
        """The job, when it has ended."""
        return await self.when(job_id, lambda job: job.state.terminal, "the job ends")

    async def when(self, job_id: str, condition: Callable[[Job], bool], name: str) -> Job:
        """The job, when the condition holds for its row; woken by the engine's hints."""
        async with asyncio.timeout(PATIENCE_S):
            with self.engine.listen(f"job:{job_id}") as hints:
                while not condition(job := await self.job(job_id)):
                    assert await hints.wait(PATIENCE_S), f"waited in vain until {name}: {job}"
        return job

    async def run(self, task: str, /, **input_fields: Any) -> Job:
        """Submit a job and wait for its end."""
        return await self.ended(await self.submit(task, **input_fields))

    async def output(self, task: str, /, **input_fields: Any) -> Any:
        """What a job of this task comes to; it must succeed."""
        job = await self.run(task, **input_fields)
        assert job.state is State.succeeded, job.error
        return msgspec.json.decode(job.output or "")

    async def error(self, task: str, /, **input_fields: Any) -> JobError:
        """How a job of this task fails; it must."""
        return await self.failure(await self.submit(task, **input_fields))

    async def failure(self, job_id: str) -> JobError:
        """How this job fails; it must."""
        job = await self.ended(job_id)
        assert job.state is State.failed
        return msgspec.json.decode(job.error or "", type=JobError)

    async def events(self, job_id: str, *types: str) -> list[Event]:
        """The job's log, or its events of these types."""
        page = await self.engine.read(DEFAULT_TENANT, job_id, START, 10_000)
        assert page is not None
        return [event for event in page.events if not types or event.type in types]

    async def data(self, job_id: str, type_: str) -> list[Any]:
        """The data of the job's events of one type."""
        return [msgspec.json.decode(event.data) for event in await self.events(job_id, type_)]

    async def cancel(self, job_id: str, reason: str | None = None) -> None:
        await self.engine.cancel(DEFAULT_TENANT, [job_id], reason)

    async def stop(self) -> None:
        """End the workers at once, if a test has not."""
        for worker in self.workers:
            worker.end_now()
        await asyncio.gather(*self.runs, return_exceptions=True)
        await self.engine.shut()


@asynccontextmanager
async def stage(app: App, plan: Plan | None = None, blobs: BlobStore | None = None) -> AsyncIterator[Stage]:
    """A stage with an open memory engine, which fails by `plan` where one is given."""
    clock = ManualClock()
    engine: Engine = MemoryEngine(clock, seeded_random("engine"))
    await engine.open()
    made = Stage(app, engine if plan is None else FaultyEngine(engine, plan), clock, blobs)
    try:
        yield made
    finally:
        await made.stop()


async def eventually(condition: Callable[[], bool], name: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until the condition holds. For what no event tells: states of threads, processes and parts."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain until {name}"
        await asyncio.sleep(0.002)


def an_assignment(**changes: Any) -> Assignment:
    """A leased job, for parts that are tested alone."""
    job = NewJob("job_1", DEFAULT_TENANT, "default", "task", "{}")
    plain = Assignment(
        Lease(job.id, 1, "token"), job.tenant, job.queue, job.task, job.input, 1, 0, 1, 0, 0, job.options
    )
    return msgspec.structs.replace(plain, **changes)


def an_attempt(**changes: Any) -> Attempt:
    return Attempt(an_assignment(**changes), Session("ses_1", 0.0))

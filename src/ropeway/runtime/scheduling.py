"""Firing schedules: the worker that does the upkeep turns their times into jobs.

It sleeps until the next time and is woken when a schedule changes; nothing is asked for in between. That it leads is
no part of the promise that a time makes one job: two that both think so submit the same job, which is one, and only one
of them writes the schedule's progress. The job goes first and the progress after it, so a crash between the two is
repeated by the next leader, to the same job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from ropeway.blobs import Files
from ropeway.blobs.inputs import hold_input, may_have_files
from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable, IdempotencyKeyReused, RopewayError, TaskNotFound
from ropeway.domain.firing import Turn, advanced, turn
from ropeway.domain.job import NewJob
from ropeway.domain.schedule import Incident, Schedule, job_at
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import Engine
from ropeway.engines.hints import Listener
from ropeway.engines.schedules import TOPIC, Held, Schedules, declared_now

__all__ = ["Scheduling"]

log = logging.getLogger("ropeway.worker")

REREAD_S = 60.0  # a hint may be lost: so late, at the worst, is a change seen
REFUSED_MS = 30_000  # until a time that made no job for some reason is tried again
AWAY_S = 1.0
REST_S = 0.02  # a program that sets a thousand schedules hints at each
AT_ONCE = 64


class _Fleet(NamedTuple):
    """What is announced now."""

    cards: dict[str, TaskCard]
    workers: Sequence[WorkerCard]
    declared: frozenset[str]

    def card_of(self, schedule: Schedule) -> TaskCard:
        """The schedule's task. Raises TaskNotFound, also where workers serve its queue and none of them knows it."""
        task = schedule.plan.task
        card = self.cards.get(task)
        if card is None:
            raise TaskNotFound(f"no worker has announced task '{task}'")
        queue = schedule.plan.queue or card.queue
        there = [worker for worker in self.workers if queue in worker.queues]
        if there and not any(task in worker.tasks for worker in there):
            raise TaskNotFound(f"no worker on queue '{queue}' knows task '{task}' any more")
        return card


class Scheduling:
    """One worker's share: it fires while `leads` says so. `fired` counts the times that made jobs."""

    def __init__(self, engine: Engine, files: Files | None, leads: Callable[[], bool], clock: Clock) -> None:
        self.fired = 0
        self._engine = engine
        self._files = files
        self._leads = leads
        self._clock = clock
        self._schedules = Schedules(engine)
        self._hints: Listener | None = None
        self._known: dict[str, Held] | None = None  # those with a time to come; None: to be read
        self._aside: dict[str, int] = {}  # by id: not before this instant
        self._skew_ms = 0  # the engine's clock less ours
        self._reread_at_s = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        with self._engine.listen(TOPIC) as self._hints:
            while True:
                try:
                    wait_s = await self.tick()
                except (EngineUnavailable, msgspec.MsgspecError) as error:
                    log.warning("schedules: %s", error)
                    self._known = None
                    wait_s = AWAY_S
                if await self._hints.wait(wait_s):
                    self._known = None
                await asyncio.sleep(REST_S)

    def look(self) -> None:
        """Wake up: this worker leads now."""
        if self._hints is not None:
            self._hints.fire(TOPIC)

    async def tick(self) -> float | None:
        """Fire what is due. Returns the seconds until something is again; None: when it is woken."""
        if not self._leads():
            self._known = None
            return None
        known = await self._read()
        now_ms = self._clock.now_ms() + self._skew_ms
        if any(self._due_at_ms(held) <= now_ms for held in known.values()):
            now_ms = await self._engine_now_ms()
            await self._fire([id_ for id_, held in known.items() if self._due_at_ms(held) <= now_ms], now_ms)
        due_at_ms = min((self._due_at_ms(held) for held in known.values()), default=float("inf"))
        return min((max(due_at_ms - now_ms, 0)) / 1000, self._reread_at_s - self._clock.monotonic_s())

    async def _read(self) -> dict[str, Held]:
        now_s = self._clock.monotonic_s()
        if self._known is None or now_s >= self._reread_at_s:
            self._aside.clear()
            self._known = {}
            async for held in self._schedules.every():
                self._keep(held)
            self._reread_at_s = now_s + REREAD_S
            if self._known:
                await self._engine_now_ms()
        return self._known

    def _keep(self, held: Held) -> None:
        if self._known is not None:
            if held.schedule.due_at_ms() is None:
                self._known.pop(held.schedule.id, None)
            else:
                self._known[held.schedule.id] = held

    async def _engine_now_ms(self) -> int:
        now_ms = await self._schedules.now_ms()
        self._skew_ms = now_ms - self._clock.now_ms()
        return now_ms

    def _due_at_ms(self, held: Held) -> int:
        due_at_ms = held.schedule.due_at_ms()
        assert due_at_ms is not None
        return max(due_at_ms, self._aside.get(held.schedule.id, 0))

    # -- firing

    async def _fire(self, ids: Sequence[str], now_ms: int) -> None:
        """Turn what is due of these schedules into jobs. They are read again: another may have fired them."""
        fleet = await self._fleet()
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            found = await self._schedules.fetch(some)
            for id_, held in zip(some, found, strict=True):
                if held is None and self._known is not None:
                    self._known.pop(id_, None)
            await asyncio.gather(*(self._turn(held, fleet, now_ms) for held in found if held is not None))

    async def _fleet(self) -> _Fleet:
        workers = await self._engine.workers()
        cards = {card.name: card for card in await self._engine.tasks()}
        return _Fleet(cards, workers, declared_now(workers))

    async def _turn(self, held: Held, fleet: _Fleet, now_ms: int) -> None:
        """One schedule's turn, and what it came to written down; a failure is its own, and no other's."""
        schedule = held.schedule
        self._keep(held)
        due = turn(schedule, now_ms)
        if due is None:
            return
        if schedule.declared and schedule.id not in fleet.declared:
            self._set_aside(schedule, now_ms)
            return
        try:
            after = await self._jobs(schedule, due, fleet, now_ms)
            await self._store(Held(after, held.version))
        except EngineUnavailable as error:
            log.warning("schedule %s: %s", schedule.id, error)
            self._aside[schedule.id] = now_ms + round(AWAY_S * 1000)
        except RopewayError as error:
            await self._refused(held, error, now_ms)

    async def _jobs(self, schedule: Schedule, due: Turn, fleet: _Fleet, now_ms: int) -> Schedule:
        """Submit the jobs of a turn; the schedule after it. Raises what a submit refuses."""
        card = fleet.card_of(schedule)
        skip: Incident | None = None
        fired: list[int] = []
        last = schedule.last_job_id
        for at_ms in due.fire:
            if schedule.overlap == "skip" and last is not None and await self._lives(schedule.tenant, last):
                skip = Incident(now_ms, at_ms, "overlap", f"{last} has not ended")
                continue
            job = job_at(schedule, card, at_ms)
            await self._submit(job)
            fired.append(at_ms)
            last = job.id
        self.fired += len(fired)
        return advanced(schedule, due, fired, skip, now_ms)

    async def _submit(self, job: NewJob) -> None:
        if may_have_files(job.input):
            await hold_input(self._files, job.tenant, job.id, job.input)
        (answer,) = await self._engine.submit([job])
        if isinstance(answer, IdempotencyKeyReused):
            return  # this very time made a job before, which has ended and is gone
        if isinstance(answer, RopewayError):
            raise answer

    async def _lives(self, tenant: str, job_id: str) -> bool:
        (job,) = await self._engine.get(tenant, [job_id])
        return job is not None and not job.state.terminal

    async def _store(self, held: Held) -> None:
        """Write the progress, unless somebody has changed the schedule: then it is looked at anew, to the same jobs."""
        if (await self._schedules.store([held]))[0]:
            self._keep(Held(held.schedule, held.version + 1))

    async def _refused(self, held: Held, error: RopewayError, now_ms: int) -> None:
        """Tell of it, once, and try again: when that comes too late, the time was missed."""
        schedule = held.schedule
        self._set_aside(schedule, now_ms)
        assert schedule.next_at_ms is not None
        known = schedule.last_error
        if known is not None and (known.code, known.fire_at_ms) == (error.code, schedule.next_at_ms):
            return
        log.warning("schedule %s makes no job: %s", schedule.id, error.detail)
        incident = Incident(now_ms, schedule.next_at_ms, error.code, error.detail)
        await self._store(Held(msgspec.structs.replace(schedule, last_error=incident), held.version))

    def _set_aside(self, schedule: Schedule, now_ms: int) -> None:
        self._aside[schedule.id] = now_ms + REFUSED_MS

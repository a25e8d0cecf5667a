"""The driver: seeded histories with zombies, lost replies, crashes, clock jumps and calls at the same time.

Everything that happens is drawn from the seed, so the same seed gives the same history. Each history draws its own
weights for the rules (swarm testing, Groce et al., ISSTA 2012): some do little but lease, others never renew.
"""

from __future__ import annotations

import asyncio
import random

import msgspec

from ropeway.domain.errors import EngineUnavailable, RopewayError
from ropeway.domain.event import START
from ropeway.domain.job import Job
from ropeway.domain.lease import Commit, LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import DEFAULT_MAX_DEPTH, QueueChange
from ropeway.domain.webhook import delivery_id
from ropeway.domain.worker import WorkerCard
from ropeway.engines.base import Engine
from ropeway.testing.faults import Moment
from ropeway.testing.harness import DurableHarness, FailpointHarness, Harness
from ropeway.testing.history.record import TENANTS, Call, History, Look, Op, Step
from ropeway.testing.history.rules import (
    BURST_RULES,
    CORE,
    CORE_WEIGHTS,
    MORTAL,
    OTHER_WEIGHTS,
    RULES,
    WAKING_BURST_RULES,
    WAKING_RULES,
    WAKING_WEIGHTS,
    limits,
    workers,
)
from ropeway.testing.history.world import QUEUES, World
from ropeway.testing.random import seeded_random

__all__ = ["DEFAULT_STEPS", "Driver", "drive"]

DEFAULT_STEPS = 40
_LOSABLE = frozenset({"submit", "cancel", "wake", "retry", "purge", "lease", "renew", "append", "commit"})
_ENOUGH = 1000
_HEALER = "healer"
_ROUNDS = 12  # of healing: more than any job's attempts and crashes together


async def drive(seed: int, harness: Harness, length: int = DEFAULT_STEPS) -> History:
    """Run one history of `length` steps, heal, drain, and read everything."""
    driver = Driver(seed, harness, length)
    await driver.start()
    try:
        await driver.run()
        await driver.heal()
        await driver.read_all()
    finally:
        await harness.stop(driver.engine)
    return driver.history


class Driver:
    """One history in the making."""

    engine: Engine

    def __init__(self, seed: int, harness: Harness, length: int) -> None:
        self.world = World(seed)
        self.history = History(harness.name, seed, length)
        self._harness = harness
        self._length = length
        self._rng: random.Random = self.world.rng
        self._own = WAKING_RULES if self.world.wakeful else {}
        self._rules = {**RULES, **self._own}
        self._weights = self._swarm()
        self._loss = self._rng.choice((0.0, 0.0, 0.1, 0.3))
        self._beside = random.Random(f"{seed}/limits")  # noqa: S311 (likewise)

    async def start(self) -> None:
        random_bytes = seeded_random(f"{self.history.seed}/engine")
        self.engine = await self._harness.start(self.world.clock, random_bytes)
        for session in ("s0", "s1"):
            await self._step([Call("announce", (WorkerCard(session, session, QUEUES, ttl_ms=5000),))])

    async def run(self) -> None:
        names, weights = list(self._weights), list(self._weights.values())
        for _ in range(self._length):
            await self._move(self._rng.choices(names, weights)[0])
            if self.world.limited and (call := limits.beside(self.world, self._beside)) is not None:
                await self._step([call])

    async def heal(self) -> None:
        """Resume and widen the queues, let every session die, and run all jobs to their end by one good worker."""
        wide = QueueChange("", paused=False, max_depth=DEFAULT_MAX_DEPTH, max_depth_per_tenant=None, max_running=None)
        changes = [msgspec.structs.replace(wide, queue=queue) for queue in QUEUES]
        await self._step([Call("set_queue", (changes,))])
        for _ in range(_ROUNDS):
            if all(job.state.terminal for job in self.world.look.jobs.values()):
                return
            await self._pass(60_000)
            await self._step([Call("promote", (_ENOUGH,))])
            await self._step([Call("rescue", (_ENOUGH,))])
            await self._wake_all()
            await self._step([Call("announce", (WorkerCard(_HEALER, _HEALER, QUEUES),))])
            served = True
            while served:  # who waits for a place under a limit has one when another ends
                served = await self._serve()

    async def _wake_all(self) -> None:
        """What sleeps for longer than healing takes has nobody else to end its wait."""
        for tenant in TENANTS if self.world.wakeful else ():
            jobs = self.world.look.jobs.values()
            asleep = [job.id for job in jobs if job.tenant == tenant and job.state is State.scheduled]
            if asleep:
                await self._step([Call("wake", (tenant, asleep))])

    async def _serve(self) -> bool:
        """Run what may start, by the good worker; whether there was anything."""
        step = await self._step([Call("lease", (LeaseRequest(_HEALER, _HEALER, QUEUES, _ENOUGH),))])
        leased = step.ops[0].answer or []
        commits = [Commit(held.lease, Outcome("succeeded", str(self.world.number()))) for held in leased]
        await self._step([Call("commit", (commits,))])
        return bool(leased)

    async def read_all(self) -> None:
        """The last word on every job that is left, and on the counts."""
        for job_id, tenant in self.world.owners.items():
            if job_id in self.world.look.jobs:
                await self._read_log(tenant, job_id)
        for tenant_or_all in (None, *TENANTS):
            self.history.stats[tenant_or_all] = await self.engine.stats(tenant_or_all)

    def _swarm(self) -> dict[str, int]:
        moves = [*RULES, "time", "expire", "burst"]
        if isinstance(self._harness, DurableHarness):
            moves.append("crash")
        if isinstance(self._harness, FailpointHarness):
            moves.append("die")
        weights = {move: self._rng.choice(CORE_WEIGHTS if move in CORE else OTHER_WEIGHTS) for move in moves}
        if self.world.wakeful:
            weights.update({move: self._rng.choice(choices) for move, choices in WAKING_WEIGHTS.items()})
        return weights

    async def _move(self, name: str) -> None:
        if name == "time":
            await self._pass(self._rng.choice((1, 300, 1000, 5000, 20_000, -2000)))
        elif name == "expire":
            await self._expire()
        elif name == "burst":
            await self._burst()
        elif name == "crash":
            await self._crash()
        elif name == "die":
            await self._die()
        elif (call := self._rules[name](self.world)) is not None:
            await self._step([call], self._lost(call))

    def _lost(self, call: Call) -> Moment | None:
        """Whether this call's request or reply is to be lost on its way."""
        if call.method not in _LOSABLE or self._rng.random() >= self._loss:
            return None
        return self._rng.choice(("before", "after"))

    async def _burst(self) -> None:
        """Two to four calls at the same time, of different kinds or all of one."""
        count = self._rng.choice((2, 3, 4))
        names = self._rng.choices(WAKING_BURST_RULES if self.world.wakeful else BURST_RULES, k=count)
        if self._rng.random() < 0.3:
            names = names[:1] * count
        calls = [call for name in names if (call := self._rules[name](self.world)) is not None]
        if calls:
            await self._step(calls)

    async def _pass(self, ms: int) -> None:
        if ms < 0:
            self.world.clock.jump(ms)
        else:
            self.world.clock.advance(ms)
        await self._record((), "time")

    async def _expire(self) -> None:
        """Workers fall silent and are rescued, and one is back: what they held has zombies from now on."""
        await self._pass(self._rng.choice((1000, 5000, 6000)))
        await self._step([Call("rescue", (_ENOUGH,))])
        await self._step([workers.announce(self.world)])

    async def _crash(self) -> None:
        """The engine's process dies between two calls."""
        assert isinstance(self._harness, DurableHarness)
        self.engine = await self._harness.crash(self.engine)
        await self._record((), "crash")

    async def _die(self) -> None:
        """The engine's process dies inside a call, before or after it is made durable; nobody gets a reply."""
        assert isinstance(self._harness, FailpointHarness)
        call = self._rules[self._rng.choice((*MORTAL, *self._own))](self.world)
        if call is None:
            return
        point = self._rng.choice(self._harness.failpoints)
        self.engine = await self._harness.die(self.engine, point, lambda: _perform(self.engine, call))
        await self._record((Op(call, "info"),), point)

    async def _step(self, calls: list[Call], lost: Moment | None = None) -> Step:
        if lost == "before":
            return await self._record((Op(calls[0], "info"),))
        if len(calls) == 1:  # most are: a task of its own would cost more than the call
            ops = [await self._call(calls[0])]
        else:
            ops = await asyncio.gather(*map(self._call, calls))
        if lost == "after":
            ops = [Op(op.call, "info") if op.is_ok else op for op in ops]
        return await self._record(tuple(ops))

    async def _call(self, call: Call) -> Op:
        try:
            return Op(call, "ok", await _perform(self.engine, call))
        except EngineUnavailable:
            return Op(call, "info")
        except (RopewayError, ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            return Op(call, "raised", f"{type(error).__name__}: {error}")

    async def _record(self, ops: tuple[Op, ...], event: str = "") -> Step:
        look = await self._look()
        step = Step(len(self.history.steps), self.world.clock.now_ms(), ops, look, event)
        self.history.steps.append(step)
        for op in ops:
            if op.call.method == "read" and op.is_ok and op.answer is not None:
                self.history.observations.append((op.call.args[1], op.answer.events))
        for job_id, job in look.jobs.items():
            if job.state.terminal and job_id not in self.history.logs:
                await self._read_log(job.tenant, job_id)
        self.world.learn(step)
        return step

    async def _look(self) -> Look:
        jobs: dict[str, Job] = {}
        for tenant in TENANTS:
            ids = [job_id for job_id, owner in self.world.owners.items() if owner == tenant]
            found = await self.engine.get(tenant, ids)
            jobs.update((job_id, job) for job_id, job in zip(ids, found, strict=True) if job is not None)
        return Look(self.world.clock.now_ms(), jobs, await self._deliveries(jobs))

    async def _deliveries(self, jobs: dict[str, Job]) -> dict[str, Job]:
        found: dict[str, Job] = {}
        for tenant in TENANTS:
            hooked = [job.id for job in jobs.values() if job.tenant == tenant and job.options.webhook is not None]
            if hooked:
                told = await self.engine.get(tenant, [delivery_id(job_id) for job_id in hooked])
                found.update((job_id, job) for job_id, job in zip(hooked, told, strict=True) if job is not None)
        return found

    async def _read_log(self, tenant: str, job_id: str) -> None:
        page = await self.engine.read(tenant, job_id, START, _ENOUGH)
        if page is not None:
            self.history.logs[job_id] = page.events
            self.history.observations.append((job_id, page.events))


async def _perform(engine: Engine, call: Call) -> object:
    return await getattr(engine, call.method)(*call.args)

"""Waking jobs that wait for others, and ending the children of a parent that is lost: one worker does it for all.

Each wait and each family is followed by a task of its own, which hints wake and which looks now and then all the same.
Nothing here is truth, and nothing is lost with it: the next leader reads the same records, and a job that was woken for
nothing waits again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable, JobNotFound
from ropeway.domain.flow import lost_with
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.domain.record import RecordKey
from ropeway.engines.base import Engine
from ropeway.engines.hints import Listener
from ropeway.engines.waits import TOPIC, Family, Kept, Wait, Waits

__all__ = ["Waking"]

K = TypeVar("K")
T = TypeVar("T")

log = logging.getLogger("ropeway.worker")

LOOK_S = 15.0  # as all who wait for hints (reliability, rule 17)
REREAD_S = 60.0  # all records: a hint may be lost, and clocks differ
OVERLAP_MS = 60_000  # between the clocks of those who note and ours
AGAIN_S = 0.25  # for a job that is noted and not stored yet
AWAY_S = 1.0
REST_S = 0.02  # a program that submits a thousand at once hints at each
ORPHAN_MS = 600_000  # until a job that was noted is taken for one that never was submitted
AT_ONCE = 500


class Waking:
    """One worker's share: it wakes while `leads` says so. `woken` counts the jobs that it woke."""

    def __init__(self, engine: Engine, leads: Callable[[], bool], clock: Clock) -> None:
        self.woken = 0
        self._engine = engine
        self._leads = leads
        self._clock = clock
        self._waits = Waits(engine)
        self._hints: Listener | None = None
        self._following: dict[RecordKey | str, asyncio.Task[None]] = {}
        self._families: dict[str, dict[RecordKey, Family]] = {}  # by parent
        self._read_at_s = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        with self._engine.listen(TOPIC) as self._hints:
            try:
                while True:
                    await self._hints.wait(await self._tick())
                    await asyncio.sleep(REST_S)
            finally:
                await self._leave()

    def look(self) -> None:
        """Wake up: this worker leads now."""
        if self._hints is not None:
            self._hints.fire(TOPIC)

    async def _tick(self) -> float | None:
        """Follow what is new. The seconds until the next look; None: when it is woken."""
        if not self._leads():
            await self._leave()
            return None
        now_s = self._clock.monotonic_s()
        is_whole = now_s >= self._read_at_s + REREAD_S
        since_ms = 0 if is_whole else self._clock.now_ms() - OVERLAP_MS
        try:
            async for kept in self._waits.since(since_ms):
                self._follow(kept)
        except (EngineUnavailable, msgspec.MsgspecError) as error:
            log.warning("waits: %s", error)
            return AWAY_S
        if is_whole:
            self._read_at_s = now_s
        return self._read_at_s + REREAD_S - now_s

    async def _leave(self) -> None:
        """Another leads now, or nobody does here."""
        self._read_at_s = float("-inf")
        following = list(self._following.values())
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        self._families.clear()

    def _follow(self, kept: Kept) -> None:
        """Have somebody follow it, if nobody does: one task for each wait, and for each parent."""
        what = kept.what
        if isinstance(what, Wait):
            self._begin(kept.key, lambda: self._attend(kept.key, what, kept.since_ms))
        else:
            family = self._families.setdefault(what.parent, {})
            family[kept.key] = what
            self._begin(what.parent, lambda: self._guard(what.tenant, what.parent, family))

    def _begin(self, name: RecordKey | str, following: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if name in self._following:
            return
        task = asyncio.create_task(following())
        self._following[name] = task
        task.add_done_callback(lambda _: self._following.pop(name, None))

    # -- a wait

    async def _attend(self, key: RecordKey, wait: Wait, since_ms: int) -> None:
        """Wake a job when those that it waits for have ended, or enough of them."""
        left = set(wait.jobs)
        with self._engine.listen(*(f"end:{job_id}" for job_id in wait.jobs)) as hints:
            looked_at = left
            while not await self._patiently(partial(self._is_over, wait, left, looked_at)):
                fired = await hints.wait(LOOK_S)
                looked_at = left.intersection(topic.removeprefix("end:") for topic in fired) or left
        while not await self._patiently(lambda: self._wake(wait)):
            if self._clock.now_ms() - since_ms > ORPHAN_MS:
                break
            await asyncio.sleep(AGAIN_S)
        await self._patiently(lambda: self._waits.drop([key]))

    async def _is_over(self, wait: Wait, left: set[str], looked_at: Collection[str]) -> bool:
        """Whether nothing is to be waited for any more. Takes those that have ended out of `left`."""
        ids = list(looked_at)
        jobs = [job for part in _parts(ids) for job in await self._engine.get(wait.tenant, part)]
        ended = {job_id: job for job_id, job in zip(ids, jobs, strict=True) if job is None or job.state.terminal}
        left.difference_update(ended)
        is_lost = any(job is None or job.state is not State.succeeded for job in ended.values())
        return not left or (wait.needs_all and is_lost)

    async def _wake(self, wait: Wait) -> bool:
        """Whether the job is there."""
        (answer,) = await self._engine.wake(wait.tenant, [wait.job])
        if isinstance(answer, JobNotFound):
            return False
        self.woken += 1
        return True

    # -- a family

    async def _guard(self, tenant: str, parent: str, family: dict[RecordKey, Family]) -> None:
        """Cancel the children of a parent that ends otherwise than well; forget those of one that has ended."""
        with self._engine.listen(f"end:{parent}") as hints:
            while (job := await self._patiently(lambda: self._look_at(tenant, parent))) and not job.state.terminal:
                await hints.wait(LOOK_S)
        del self._families[parent]
        if job is not None and job.state is not State.succeeded:
            children = dict.fromkeys(child for each in family.values() for child in each.children)
            for part in _parts(list(children)):
                await self._patiently(partial(self._cancel, job, part))
        for keys in _parts(list(family)):
            await self._patiently(partial(self._waits.drop, keys))

    async def _look_at(self, tenant: str, job_id: str) -> Job | None:
        (job,) = await self._engine.get(tenant, [job_id])
        return job

    async def _cancel(self, parent: Job, children: Sequence[str]) -> None:
        """Each once, however often this is repeated, also where others share it."""
        await self._engine.cancel(parent.tenant, children, lost_with(parent), f"parent:{parent.id}")

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """What the engine says, when it is there."""
        while True:
            try:
                return await call()
            except EngineUnavailable as error:
                log.info("waits: %s", error)
                await asyncio.sleep(AWAY_S)


def _parts(items: Sequence[K]) -> list[Sequence[K]]:
    return [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]

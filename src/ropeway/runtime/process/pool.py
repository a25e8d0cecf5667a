"""Children of one kind: kept warm, given jobs one after the other, replaced.

They serve all tasks of a queue with the same settings, so that those share a model. `warm` of them are there from the
worker's start, with what the tasks need open, and are replaced as soon as one is gone; the others come when they are
needed, and end after some idle time. Where they are pinned to devices, there is one to each, and all are warm.

**Warm workers first.** Jobs are asked for as children are idle. Only when none has been idle for `COLD_S` is there room
for jobs that wait for a child to start: by then, any other worker with an idle child has taken what there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from ropeway.domain.retry import Retry, backoff_s
from ropeway.runtime.attempt import Reason
from ropeway.runtime.inbox import Inbox
from ropeway.runtime.process.call import Call
from ropeway.runtime.process.fate import how_it_ended, verdict_on
from ropeway.runtime.process.isolate import CLOSE_S, Death, Isolate, Life
from ropeway.runtime.process.memory import held_bytes
from ropeway.runtime.process.settings import MIB, Isolation
from ropeway.runtime.process.wire import Hello
from ropeway.runtime.resources import ResourceFailed
from ropeway.runtime.verdict import Told

__all__ = ["IDLE_S", "GivenBack", "Plan", "Pool", "PoolCounts"]

log = logging.getLogger("ropeway.worker")

COLD_S = 0.25
IDLE_S = 60.0  # that a child above the warm ones waits for another job
START_S = 600.0  # for imports and a model: one that is not ready by then hangs
AGAIN = Retry(max_attempts=1000, base_s=0.1, factor=2.0, cap_s=30.0)  # between starts that fail


class GivenBack(Exception):
    """No child could be started for the job: it has not run."""


class Plan(msgspec.Struct, frozen=True):
    """`pins`: the device of each child, None where it has none; as many as there may be."""

    hello: Hello
    isolation: Isolation
    pins: tuple[str | None, ...]
    warm: int
    environment: Callable[[str | None], Mapping[str, str]]


class PoolCounts(msgspec.Struct):
    """Children of one kind, or of all, since the start of their worker."""

    started: int = 0
    crashed: int = 0
    killed: int = 0
    recycled: int = 0


class Pool:
    """Belongs to the loop. `freed` is called when there is room that was not there.

    `oom_kills` tells whether the kernel has just killed something for the want of memory.
    """

    def __init__(self, plan: Plan, inbox: Inbox, freed: Callable[[], None], oom_killed: Callable[[], bool]) -> None:
        self.children: set[Isolate] = set()
        self.counts = PoolCounts()
        self._plan = plan
        self._inbox = inbox
        self._loop = inbox.loop
        self._freed = freed
        self._oom_killed = oom_killed
        self._pins = list(reversed(plan.pins))
        self._names = ", ".join(f"'{name}'" for name in plan.hello.tasks)
        self._is_open = False
        self._waiting: deque[Call] = deque()
        self._idle: list[Isolate] = []
        self._opening: asyncio.Future[None] | None = None
        self._failures = 0  # starts that failed, one after the other
        self._again: asyncio.TimerHandle | None = None
        self._tiring: asyncio.TimerHandle | None = None
        self._cooling: asyncio.TimerHandle | None = None
        self._is_cold = False  # none has been idle for COLD_S
        self._closing = False
        self._empty = asyncio.Event()
        self._empty.set()

    # -- what the worker asks

    @property
    def free(self) -> int:
        """How many jobs to ask for."""
        if self._idle:
            return len(self._idle)
        if self._failures or (self._is_open and not self._is_cold):
            return 0
        taken = sum(child.life in (Life.busy, Life.leaving) for child in self.children)
        return len(self._plan.pins) - taken - len(self._waiting)

    @property
    def limit(self) -> int:
        return len(self._plan.pins)

    @property
    def alive(self) -> int:
        return len(self.children)

    @property
    def is_warm(self) -> bool:
        """Whether a child is there that has opened what the tasks need."""
        return any(child.was_ready and child.life in (Life.idle, Life.busy) for child in self.children)

    @property
    def watches_memory(self) -> bool:
        return self._plan.isolation.watches_memory

    async def open(self) -> None:
        """Start the warm children, and wait for the first. Raises ResourceFailed when it could not be started."""
        self._is_open = True
        self._opening = self._loop.create_future()
        self._fill()
        try:
            await self._opening
        finally:
            self._opening = None

    def submit(self, call: Call) -> None:
        """Run this, as soon as a child is idle."""
        if self._idle:
            self._give(self._idle.pop(), call)
            if not self._idle:
                self._cool()
        else:
            self._waiting.append(call)
            self._fill()

    def stop(self, call: Call, reason: str) -> None:
        """Ask its code to stop; it has not begun: it never does."""
        if call in self._waiting:
            self._waiting.remove(call)
            call.back(asyncio.CancelledError(reason))
        else:
            call.stop(reason)

    def kill(self, call: Call) -> bool:
        """End the child that runs it. False when it is being ended already."""
        child = call.child
        if not isinstance(child, Isolate) or child.call is not call or child.life is not Life.busy:
            return False
        log.warning(
            "%s did not stop when asked (%s): child %d is killed",
            call.attempt.assignment.job_id,
            call.attempt.reason,
            child.pid,
        )
        self.counts.killed += 1
        child.interrupt(call.attempt.reason or Reason.cancel)
        return True

    async def close(self) -> None:
        """Let all children go, and wait until they are gone. None has a job any more."""
        self._closing = True
        for timer in (self._again, self._cooling, self._tiring):
            if timer is not None:
                timer.cancel()
        for child in list(self.children):
            if child.life in (Life.idle, Life.starting):
                child.let_go()
            else:
                child.kill()
        with contextlib.suppress(TimeoutError):  # what the kernel cannot end is not waited for
            await asyncio.wait_for(self._empty.wait(), CLOSE_S + 2.0)

    def check_memory(self) -> None:
        """Kill who holds more than it may."""
        limit_mib = self._plan.isolation.memory_mib
        if limit_mib is None:
            return
        for child in self.children:
            held = held_bytes(child.pid) if child.pid and child.life in (Life.starting, Life.busy) else None
            if held is not None and held > limit_mib * MIB:
                child.over_limit = f"held {held // MIB} MiB of memory, and may hold {limit_mib} (memory_mib)"
                child.kill()

    # -- what a child tells

    def ready(self, child: Isolate) -> None:
        """It is idle: out with it if its time has come, else the next job."""
        self._failures = 0
        if self._opening is not None and not self._opening.done():
            self._opening.set_result(None)
        if self._closing or self._is_spent(child):
            self.counts.recycled += not self._closing
            child.let_go()
        elif self._waiting:
            self._give(child, self._waiting.popleft())
        else:
            self._idle.append(child)
            self._warm()
            self._watch_idle()
        self._freed()

    def gone(self, child: Isolate, death: Death) -> None:
        """It is dead: its job is told, and another takes its place where one is wanted."""
        self.children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
            self._cool()
        self._pins.append(child.pin)
        call, child.call = child.call, None
        if call is not None:
            self._bereaved(call, child, death)
        is_no_use = not child.was_ready or (not child.jobs and not child.was_let_go)
        if is_no_use and not self._closing:
            self._failed_to_start(child, death)
        elif not self._closing:
            self._fill()
        if not self.children:
            self._empty.set()
        self._freed()

    # -- inside

    def _give(self, child: Isolate, call: Call) -> None:
        child.run(call)
        call.begun()

    def _cool(self) -> None:
        """None is idle any more. Where all that may be are warm, nothing is won by waiting in here for one."""
        if not self._idle and self._cooling is None and self._plan.warm < len(self._plan.pins):
            self._cooling = self._loop.call_later(COLD_S, self._be_cold)

    def _be_cold(self) -> None:
        self._cooling = None
        self._is_cold = not self._idle
        self._freed()

    def _warm(self) -> None:
        self._is_cold = False
        if self._cooling is not None:
            self._cooling.cancel()
            self._cooling = None

    def _is_spent(self, child: Isolate) -> bool:
        isolation = self._plan.isolation
        if isolation.max_jobs_per_child is not None and child.jobs >= isolation.max_jobs_per_child:
            return True
        if isolation.max_mib_per_child is None or not child.jobs:
            return False
        held = held_bytes(child.pid)
        return held is not None and held > isolation.max_mib_per_child * MIB

    def _watch_idle(self) -> None:
        """Where there are more than the warm ones, look after a while who has had nothing to do."""
        if self._tiring is None and len(self.children) > self._plan.warm:
            self._tiring = self._loop.call_later(IDLE_S, self._tire)

    def _tire(self) -> None:
        self._tiring = None
        until_s = self._loop.time() - IDLE_S
        surplus = len(self.children) - self._plan.warm
        for child in [child for child in self._idle if child.idle_since_s <= until_s][: max(surplus, 0)]:
            self._idle.remove(child)
            self._cool()
            child.let_go()
        self._watch_idle()

    def _fill(self) -> None:
        """Start as many children as are wanted, and there is room for."""
        if self._closing or self._again is not None:
            return
        starting = sum(child.life is Life.starting for child in self.children)
        wanted = max(len(self._waiting) - starting, self._plan.warm - len(self.children))
        for _ in range(min(wanted, len(self._pins), 1 if self._failures else wanted)):
            self._start()

    def _start(self) -> None:
        pin = self._pins.pop()
        child = Isolate(self._plan.hello, pin, self._plan.environment(pin), self._inbox, self)
        self.children.add(child)
        self.counts.started += 1
        self._empty.clear()
        child.start()
        self._loop.call_later(START_S, self._give_up_starting, child)

    def _give_up_starting(self, child: Isolate) -> None:
        if child.life is Life.starting:
            child.unfit = f"it was not ready after {START_S:g} s"
            child.kill()

    def _failed_to_start(self, child: Isolate, death: Death) -> None:
        """Try again later, and later still. Nobody waits for it: the jobs that did go back."""
        why = child.unfit or child.over_limit or f"it died as it started: {how_it_ended(death)}"
        if self._opening is not None and not self._opening.done():
            self._opening.set_exception(ResourceFailed(f"no child for {self._names}: {why}"))
            self._closing = True
            return
        self._failures += 1
        wait_s = backoff_s(AGAIN, self._failures, 1.0)
        log.error("no child for %s: %s; again in %.1f s", self._names, why, wait_s)
        if self._again is None:
            self._again = self._loop.call_later(wait_s, self._try_again)
        if not any(other.was_ready for other in self.children):
            waiting, self._waiting = self._waiting, deque()
            for call in waiting:
                call.back(GivenBack(why))

    def _try_again(self) -> None:
        self._again = None
        self._fill()

    def _bereaved(self, call: Call, child: Isolate, death: Death) -> None:
        """The job whose child is dead."""
        if call.attempt.reason is not None:
            call.back(asyncio.CancelledError(call.attempt.reason))
            return
        self.counts.crashed += 1
        verdict = verdict_on(death, child.over_limit, out_of_memory=self._oom_killed())
        log.warning("%s: %s", call.attempt.assignment.job_id, verdict.error.message)
        call.back(Told(verdict))

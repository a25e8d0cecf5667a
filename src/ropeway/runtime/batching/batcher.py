"""One task's batches in one worker: jobs wait for others, and for a call to be free, and are called together.

A batch goes when it is full; when its first job has waited for `max_wait` while a call was free; and earlier when
nothing else can come, for the queue was found empty and no lease is on its way, or the room for jobs that wait is
taken. While every call runs, the next batch fills up.

1. A queue found empty is not the end of all work: somebody may submit in the next millisecond. See `bet`.
2. No more is leased ahead than one batch, when all calls run; what waits could be run by other workers.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Sequence

from ropeway.domain.lease import Assignment
from ropeway.runtime.attempt import Reason, Session
from ropeway.runtime.batching.bet import Bet
from ropeway.runtime.batching.call import Call
from ropeway.runtime.batching.counts import Counts
from ropeway.runtime.batching.item import Item
from ropeway.runtime.batching.shape import Batching
from ropeway.runtime.batching.steps import Ended
from ropeway.runtime.batching.tools import Source, Timer, Tools
from ropeway.runtime.batching.waiting import Closing, Group, Waiting
from ropeway.runtime.context import Context
from ropeway.runtime.options import BatchSnapshot
from ropeway.runtime.resources import ResourceFailed
from ropeway.runtime.run import Work

__all__ = ["Batcher"]

log = logging.getLogger("ropeway.worker")


class Batcher:
    """Takes the leased jobs of one task, and calls its function for many at once. Everything is the loop's.

    It is also the room of its queue: `free` is how many more jobs may be leased.
    """

    def __init__(self, work: Work, batching: Batching, tools: Tools) -> None:
        self.work = work
        self.sources: Sequence[Source] = ()
        self.inbox = tools.inbox
        self.pool = tools.pool
        self.artifacts = tools.artifacts
        self._batching = batching
        self._batch = batching.batch
        self._tools = tools
        self._concurrency = work.task.concurrency or 1
        self._waiting: Waiting[Item] = Waiting(self._batch.max_size, self._batch.max_cost)
        self._numbers = itertools.count()
        self._preparing: dict[asyncio.Task[None], Item] = {}
        self._calls: set[Call] = set()
        self._timer: Timer | None = None
        self._timer_at_s = math.inf
        self._bet = Bet()
        self._drained = False
        self._counts = Counts()

    @property
    def slots(self) -> int:
        """How many jobs can run at once."""
        return self._concurrency * self._batch.max_size

    @property
    def free(self) -> int:
        """Enough jobs for every call that could begin, or for one batch ahead."""
        waiting = len(self._waiting) + len(self._preparing)
        return max(self._free_calls, 1) * self._batch.max_size - waiting

    @property
    def snapshot(self) -> BatchSnapshot:
        return self._counts.snapshot(len(self._waiting) + len(self._preparing), len(self._calls))

    # -- what the worker calls

    def start(self, assignment: Assignment, session: Session) -> None:
        """Take a leased job, to be run with others."""
        item = Item(assignment, session, self.work, self._asked)
        session.attempts[assignment.lease.job_id] = item
        desk = self._tools.desk
        desk.running.add(item)
        desk.open_feed(item)
        if self._drained:
            item.started = True
            desk.ask(item, Reason.drain)
        elif self.work.given is None or desk.needs(item):
            task = asyncio.get_running_loop().create_task(self._prepare(item))
            self._preparing[task] = item
            task.add_done_callback(self._prepared)
        else:
            self._arrive(item)

    def looked(self) -> None:
        """The queue was asked for all that there is room for: perhaps nothing else can come now."""
        if self._waiting:
            self._pump()

    def drain(self) -> None:
        """Give back at once what waits, and whatever still comes: the worker leaves. Calls that run go on."""
        self._drained = True
        for item in (*self._waiting, *self._preparing.values()):
            self._tools.desk.ask(item, Reason.drain)

    # -- what a call asks for and tells

    def context(self, item: Item) -> Context:
        assert item.feed is not None
        return self._tools.desk.context(item, item.feed)

    def ended(self, ended: Sequence[Ended]) -> None:
        """These jobs' parts of a call are over."""
        for item, end in ended:
            self._end(item, end)

    def returned(self, call: Call) -> None:
        """A call is over: the next begins before the results of this one are looked at."""
        self._calls.discard(call)
        self._counts.splits += call.splits
        if call.is_abandoned:
            self.pool.abandoned -= 1
        self._bet.ended(call)
        now_s = self._now_s()
        for item in self._waiting:
            item.since_s = min(item.since_s, now_s)
        self._pump(now_s)
        self.ended(call.results)

    # -- from the lease to the group

    async def _prepare(self, item: Item) -> None:
        """For a job whose input has files, or whose task this worker was not prepared for."""
        if self.work.given is None:
            self.work.given = await self._tools.resources.open(self.work.task.resource_names)
        if self._tools.desk.needs(item):
            await self._tools.desk.bring(item)

    def _prepared(self, task: asyncio.Task[None]) -> None:
        item = self._preparing.pop(task)
        error = asyncio.CancelledError(item.reason) if task.cancelled() else task.exception()
        if error is None:
            self._arrive(item)
        else:
            if isinstance(error, ResourceFailed):
                self._tools.broken(error)
                item.reason = item.reason or Reason.drain
            self._end(item, error)
        self._pump()

    def _arrive(self, item: Item) -> None:
        if item.reason is not None:
            self._end(item, asyncio.CancelledError(item.reason))
            return
        try:
            self._weigh(item)
            item.arrived_s, item.number = self._now_s(), next(self._numbers)
            item.since_s = item.arrived_s if self._free_calls > 0 else math.inf
            group = self._waiting.add(item)
        except Exception as error:
            self._end(item, error)
            return
        item.started = True
        self._bet.came(item.key, item.arrived_s)
        if self._free_calls > 0:
            if self._waiting.full(group) or not self._more_may_come:
                self._pump()
            else:
                self._wake_at(self._window_end_s(group))

    def _weigh(self, item: Item) -> None:
        """Its key and cost. Raises InputInvalid, and what the functions for them raise."""
        batching = self._batching
        if batching.key is not None:
            item.key = batching.key(item.arguments())
        if self._batch.max_cost is None:
            return
        item.cost = item.assignment.options.cost if batching.cost is None else batching.cost(item.arguments())
        if not 0 <= item.cost < math.inf:
            raise ValueError(f"the batch's cost of this job is {item.cost!r}, not a number from 0 on")

    def _asked(self, item: Item) -> None:
        """It is to stop. One that waits leaves; one that runs is judged when its call is over, or at its next step."""
        if item.call is not None:
            item.call.stop_if_unwanted()
            return
        if item in self._waiting:
            self._waiting.remove(item)
        self._end(item, asyncio.CancelledError(item.reason))

    def _end(self, item: Item, end: str | BaseException | None) -> None:
        item.handle = None  # it holds itself by that
        self._tools.desk.ended(item, end)

    # -- from the group to the call

    @property
    def _free_calls(self) -> int:
        return self._concurrency - len(self._calls)

    @property
    def _more_may_come(self) -> bool:
        return bool(self._preparing) or any(source.coming for source in self.sources)

    def _now_s(self) -> float:
        return self._tools.clock.monotonic_s()

    def _window_end_s(self, group: Group[Item]) -> float:
        """Until when its first job may be kept waiting: from when a call was free for it at first."""
        return group.first.since_s + self._batch.max_wait

    def _pump(self, now_s: float | None = None) -> None:
        """Begin the calls that can begin."""
        now_s = self._now_s() if now_s is None else now_s
        while self._waiting and self._free_calls > 0 and (ready := self._ready(now_s)) is not None:
            self._begin(*ready, now_s)
        if self._waiting and self._free_calls > 0:
            self._wake_at(min(map(self._window_end_s, self._waiting.groups)))

    def _ready(self, now_s: float) -> tuple[Group[Item], Closing] | None:
        """The group whose first job came before those of all others that may go, and why it may."""
        more_may_come = self._more_may_come
        ready = [
            (group, why)
            for group in self._waiting.groups
            if (why := self._closing(group, now_s, more_may_come)) is not None
        ]
        return min(ready, key=lambda each: each[0].first.number, default=None)

    def _closing(self, group: Group[Item], now_s: float, more_may_come: bool) -> Closing | None:
        full = self._waiting.full(group)
        if full is not None:
            return full
        if now_s >= self._window_end_s(group):
            return Closing.wait
        if more_may_come:
            return None
        if self.free <= 0:
            return Closing.room
        if not self._bet.waits:
            return Closing.idle
        group.held_at = group.held_at or len(group.jobs)
        return None

    def _begin(self, group: Group[Item], why: Closing, now_s: float) -> None:
        until_s = self._window_end_s(group)
        if why is Closing.wait and group.held_at == len(group.jobs):
            self._bet.waited_in_vain()
        key, items = group.key, self._waiting.take(group)
        if why is Closing.size and len(items) < self._batch.max_size:
            why = Closing.cost  # enough jobs were there, and fewer were as much as one call may cost
        call = Call(items, self.work, self, split=self._batch.split)
        if why is Closing.idle:
            self._bet.went_early(call, key, until_s)
        self._calls.add(call)
        self._counts.began(why, len(items))
        log.debug(
            "batch of %d for %s (%s), after %.1f ms",
            len(items),
            self.work.task.name,
            why,
            (now_s - items[0].arrived_s) * 1000,
        )
        for item in items:
            item.call = call
            self._tools.desk.watch(item)  # a job's own times begin with its call: waiting for others is not its doing
        call.start()
        self._tools.freed()

    # -- the timer

    def _wake_at(self, at_s: float) -> None:
        """Look again then, unless that is to happen earlier anyway."""
        if self._timer is not None:
            if self._timer_at_s <= at_s:
                return
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = self._tools.later(max(at_s - self._now_s(), 0.0), self._rang)

    def _rang(self) -> None:
        at_s, self._timer, self._timer_at_s = self._timer_at_s, None, math.inf
        self._pump(max(at_s, self._now_s()))  # clocks differ by a hair: what was to be over then is over

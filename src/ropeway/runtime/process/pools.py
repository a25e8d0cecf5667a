"""The children of one worker: a pool for each kind of them, and the watch on their memory."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ropeway.domain.errors import InvalidRequest
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.feed import Feed
from ropeway.runtime.inbox import Inbox
from ropeway.runtime.link import LINK_VARIABLE
from ropeway.runtime.process.call import Back, Call, Counter
from ropeway.runtime.process.devices import pinned
from ropeway.runtime.process.memory import held_bytes, oom_kills
from ropeway.runtime.process.pool import Plan, Pool, PoolCounts
from ropeway.runtime.process.wire import Hello
from ropeway.runtime.registry import App
from ropeway.runtime.task import Task

__all__ = ["ProcessPools", "cores"]

log = logging.getLogger("ropeway.worker")

WATCH_S = 0.05  # a look takes 40 us; what a task takes in between, it has before it is killed
OOM_LOOKS = 20  # watches between two looks at the kernel's count


class ProcessPools:
    """Made in the worker's loop.

    Args:
        tasks: those with `run="process"` that this worker can run.
        children: how many a kind may have that does not say less, and is not pinned to devices.
        devices: what there is to pin children to.
        freed: called when there is room that was not there.
    """

    def __init__(
        self,
        app: App,
        tasks: Iterable[Task[..., Any, Any]],
        inbox: Inbox,
        counter: Counter,
        children: int,
        devices: Sequence[str],
        freed: Callable[[], None],
    ) -> None:
        self.by_task: dict[str, Pool] = {}
        self._counter = counter
        self._fault: InvalidRequest | None = None
        self._pools: dict[Pool, tuple[Task[..., Any, Any], ...]] = {}
        for alike in _kinds(tasks):
            pool = Pool(_plan(self._address(app), alike, children, devices), inbox, freed, self._has_oom_killed)
            self._pools[pool] = alike
            self.by_task.update((task.name, pool) for task in alike)
        self._oom_before = self._oom_seen = oom_kills() if self._pools else 0

    async def open(self, queues: Sequence[str]) -> None:
        """Start the warm children of the tasks on these queues; those of others start when a job comes for them.

        Raises ResourceFailed; InvalidRequest when no other process can import the application.
        """
        served = [pool for pool, alike in self._pools.items() if alike[0].card.queue in queues]
        if served and self._fault is not None:
            raise self._fault
        opening = [asyncio.ensure_future(pool.open()) for pool in served]
        try:
            await asyncio.gather(*opening)
        finally:
            for one in opening:
                one.cancel()
            await asyncio.gather(*opening, return_exceptions=True)

    async def close(self) -> None:
        """Let all children go, and wait until they are gone."""
        await asyncio.gather(*(pool.close() for pool in self._pools))

    async def watch(self) -> None:
        """Keep children to their memory. Until cancelled."""
        watched = [pool for pool in self._pools if pool.watches_memory]
        if watched and held_bytes(os.getpid()) is None:
            log.warning("memory_mib is not kept to: this system does not tell what a process holds")
            watched = []
        while True:
            for _ in range(OOM_LOOKS if watched else 1):
                await asyncio.sleep(WATCH_S if watched else WATCH_S * OOM_LOOKS)
                for pool in watched:
                    pool.check_memory()
            self._oom_before, self._oom_seen = self._oom_seen, oom_kills()

    def submit(
        self,
        attempt: Attempt,
        feed: Feed | None,
        files: dict[str, tuple[str, str]] | None,
        begun: Callable[[], None],
        back: Back,
    ) -> Call:
        """Run an attempt in a child."""
        call = Call(attempt, feed, self._counter, begun, back, files)
        self._of(call).submit(call)
        return call

    def stop(self, call: Call, reason: str) -> None:
        self._of(call).stop(call, reason)

    def kill(self, call: Call) -> bool:
        """End the child that runs it. False when that is under way already."""
        return self._of(call).kill(call)

    @property
    def warm(self) -> tuple[str, ...]:
        """The tasks that have a child with all that they need open."""
        return tuple(name for name, pool in self.by_task.items() if pool.is_warm)

    @property
    def slots(self) -> int:
        """How many jobs can run at once."""
        return sum(pool.limit for pool in self._pools)

    @property
    def figures(self) -> dict[str, int]:
        """For a snapshot."""
        names = PoolCounts.__struct_fields__
        sums = {f"children_{name}": sum(getattr(pool.counts, name) for pool in self._pools) for name in names}
        return {"children": sum(pool.alive for pool in self._pools), **sums}

    def _of(self, call: Call) -> Pool:
        return self.by_task[call.attempt.assignment.task]

    def _address(self, app: App) -> str:
        try:
            return app.origin.address
        except InvalidRequest as error:
            self._fault = error  # told when the worker starts
            return ""

    def _has_oom_killed(self) -> bool:
        return oom_kills() > self._oom_before


def cores() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kinds(tasks: Iterable[Task[..., Any, Any]]) -> Iterable[tuple[Task[..., Any, Any], ...]]:
    """The tasks that share children: those of a queue with the same settings."""
    kinds: dict[object, list[Task[..., Any, Any]]] = {}
    for task in tasks:
        kinds.setdefault((task.card.queue, task.isolation, task.concurrency), []).append(task)
    return map(tuple, kinds.values())


def _plan(address: str, alike: Sequence[Task[..., Any, Any]], children: int, devices: Sequence[str]) -> Plan:
    isolation, concurrency = alike[0].isolation, alike[0].concurrency
    names = tuple(task.name for task in alike)
    hello = Hello(address, names, logging.getLogger().getEffectiveLevel(), isolation.data_mib)
    if isolation.device == "gpu":
        pins: tuple[str | None, ...] = tuple(devices)[: isolation.children or concurrency or len(devices)]
        return Plan(hello, isolation, pins, len(pins), _pinned)
    limit = min(isolation.children or children, children, concurrency or children)
    return Plan(hello, isolation, (None,) * limit, 1, _hidden if isolation.device == "cpu" else _plain)


def _plain(_: str | None) -> Mapping[str, str]:
    """Our own environment, without what is between us and our supervisor."""
    return {name: value for name, value in os.environ.items() if name != LINK_VARIABLE}


def _hidden(_: str | None) -> Mapping[str, str]:
    return {**_plain(None), **pinned(None)}


def _pinned(device: str | None) -> Mapping[str, str]:
    return {**_plain(None), **pinned(device)}

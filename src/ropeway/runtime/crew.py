"""The parts of one running worker, wired together."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from ropeway.blobs import Files
from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.ids import RandomBytes
from ropeway.domain.worker import WorkerCard
from ropeway.engines.base import Engine, EngineBroken
from ropeway.engines.schedules import TOPIC as SCHEDULES
from ropeway.runtime.attempt import Attempt, Reason
from ropeway.runtime.batching.batchers import Batchers
from ropeway.runtime.batching.tools import Tools
from ropeway.runtime.committer import Committer
from ropeway.runtime.composing.others import Others
from ropeway.runtime.declaring import declare
from ropeway.runtime.duties import Duties
from ropeway.runtime.executor import Executor, Run, Work
from ropeway.runtime.filing import Filing
from ropeway.runtime.inbox import Inbox, Wake
from ropeway.runtime.isolation import ThreadPool
from ropeway.runtime.keeper import BEATS_PER_TTL, Keeper
from ropeway.runtime.mailbox import PostOffice
from ropeway.runtime.needs import Unserved, standing_of
from ropeway.runtime.options import Snapshot, WorkerOptions
from ropeway.runtime.patience import Jitter, Patience
from ropeway.runtime.poller import Poller
from ropeway.runtime.process.isolated import Isolated
from ropeway.runtime.registry import App, is_own
from ropeway.runtime.resources import OpenResources, ResourceFailed
from ropeway.runtime.resuming import Resuming
from ropeway.runtime.sessions import Sessions
from ropeway.runtime.slots import Lane, Room, groups_of, lanes_of
from ropeway.runtime.watchdog import Watchdog
from ropeway.runtime.writer import Writer

__all__ = ["Crew"]

log = logging.getLogger("ropeway.worker")

COMMIT_AHEAD = 2_048  # outcomes that may wait for the engine before no more work is asked for
CHECKS_PER_TTL = 20


class _CommitRoom:
    """Room for outcomes: what ends faster than the engine commits is not to pile up without end."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    @property
    def free(self) -> int:
        return COMMIT_AHEAD - self._committer.backlog


class Crew:
    """Made in the running loop. `state` is the worker's, for its card; `news` is raised at every end of an attempt."""

    def __init__(
        self,
        app: App,
        engine: Engine,
        options: WorkerOptions,
        clock: Clock,
        random: RandomBytes,
        jitter: Jitter,
        broken: Callable[[ResourceFailed], None],
        files: Files | None = None,
    ) -> None:
        self.state = "starting"
        self.news = Wake()
        self._app = app
        self._engine = engine
        self._options = options
        self._jitter = jitter
        self._random = random
        self._name = options.full_name
        self._standing = standing_of(app, options)
        self._queues, unmet = self._standing.queues, self._standing.lacking
        self._announced: WorkerCard | None = None
        inbox = Inbox(asyncio.get_running_loop())
        self.pool = ThreadPool(inbox, options.threads, stack_bytes=options.stack_bytes)
        self.resources = OpenResources(app.resources, self.pool)
        self.sessions = Sessions(
            engine,
            ttl_ms=options.session_ttl_ms,
            outage_s=options.outage_s,
            card=self._card,
            clock=clock,
            random=random,
            jitter=jitter,
        )
        self.post = PostOffice(engine, inbox)
        self.committer = Committer(engine, jitter, self._settled, self._ended)
        self.writer = Writer(engine, inbox, clock, self._ask, jitter)
        loop_lane = Lane(options.concurrency)
        own_lanes = lanes_of(app.tasks.values())
        self.works = {
            name: Work(task, (*((loop_lane,) if task.on_loop else ()), *filter(None, [own_lanes.get(name)])))
            for name, task in app.tasks.items()
            if task.batching is None and not task.in_process and name not in unmet
        }
        filing = Filing(files, self.committer, jitter)
        resuming = Resuming(engine, jitter)
        others = Others(engine, files, self.pool, resuming, clock, random, jitter)
        self.executor = Executor(
            self.works,
            self.resources,
            self.pool,
            self.writer,
            self.committer,
            self.post,
            filing,
            others,
            resuming,
            jitter=jitter,
            cancel_grace_s=options.cancel_grace_s,
            freed=self._freed,
            broken=broken,
        )
        self.sessions.attach(self.executor.ask, lambda: self.executor.running)
        loop = asyncio.get_running_loop()
        self.batchers = Batchers(
            (task for name, task in app.tasks.items() if name not in unmet),
            Tools(
                self.executor,
                self.resources,
                self.pool,
                inbox,
                filing.artifacts,
                clock,
                loop.call_later,
                self._freed,
                broken,
            ),
        )
        self.executor.starters.update(self.batchers.by_name)
        self.isolated = Isolated(
            app, self._standing, self.executor, inbox, self.post, filing, options.children, self._freed
        )
        self.executor.starters.update(dict.fromkeys(unmet, Unserved(unmet, self.committer)))
        rooms: dict[str, Room] = {**own_lanes, **self.batchers.by_name, **self.isolated.pools.by_task}
        groups = groups_of(self._queues, app.tasks.values(), loop_lane, self.pool, rooms)
        commit_room: Room = _CommitRoom(self.committer)
        for group in groups:
            group.rooms = (*group.rooms, commit_room)
        self._groups = groups
        self.batchers.attach(groups)
        poll_s = options.safety_poll_s
        self.poller = Poller(engine, self.sessions, groups, self._name, self.executor.start, jitter, poll_s)
        self.sessions.opened.append(lambda _: self.poller.refresh())
        self.keeper = Keeper(engine.renewer(), self.sessions, inbox, clock, options.session_ttl_ms)
        self.watchdog = Watchdog(self.poller, self.keeper, poll_s, clock)
        self.duties = Duties(engine, files, f"{self._name}-{random(4).hex()}", clock) if options.upkeep else None

    async def start(self) -> None:
        """Open what the served tasks need, tell the engine of them, and open a session. Raises ResourceFailed."""
        for work in (*self.works.values(), *self.batchers.works):
            if work.task.card.queue in self._queues:
                work.given = await self.resources.open(work.task.resource_names)
        await self.isolated.pools.open(self._queues)
        await self._publish()
        await self.sessions.open()
        if self._app.schedules:
            await self._engine.tell(SCHEDULES)  # they are declared from now on, which is by the session's card
        self.keeper.start()
        self.state = "ready"

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """What runs for as long as the worker does, each until cancelled."""
        parts = [
            self.poller.listen(),
            self.writer.run(),
            self.committer.run(),
            self.sessions.run(),
            self.sessions.hear(),
            self._watch(),
            self._tell(),
        ]
        if self.isolated.pools.by_task:
            parts.append(self.isolated.pools.watch())
        if self.duties is not None:
            parts += self.duties.parts()
        return parts

    @property
    def open_runs(self) -> list[Run]:
        """Attempts whose outcome is not decided yet."""
        return [run for run in self.executor.running if not run.closed]

    @property
    def quiet(self) -> bool:
        """Whether every outcome has reached the engine, or is nobody's any more."""
        return not any(session.attempts for session in self.sessions.held) and not self.committer.backlog

    def stop_leasing(self) -> None:
        """Ask for no more work; what waits for a batch, and would only begin now, goes back to its place."""
        self.poller.stop()
        self.batchers.drain()

    def release_all(self, grace_s: float) -> None:
        """Ask everything to stop, for the worker goes: back to its place, the attempt given back."""
        for run in self.open_runs:
            self.executor.ask(run, Reason.drain, grace_s)

    async def leave(self) -> None:
        """Close resources, sessions and threads; what is still held is rescued by the engine."""
        self.keeper.stop()
        await self.isolated.pools.close()
        await self.resources.close()
        await self.sessions.end()
        await self.keeper.gone()
        await self.post.close()
        self.pool.close()
        self.state = "ended"

    def snapshot(self) -> Snapshot:
        threads = self.pool.counts
        return Snapshot(
            name=self._name,
            state=self._visible_state(),
            running=len(self.executor.running),
            committing=self.committer.backlog,
            concurrency=self._options.concurrency,
            threads=self.pool.limit,
            threads_alive=threads.alive,
            threads_busy=threads.busy,
            threads_idle=threads.idle,
            threads_abandoned=threads.abandoned,
            threads_peak=threads.peak,
            outcomes=dict(self.committer.counts),
            safety_finds=self.poller.safety_finds,
            batches=self.batchers.snapshot(),
            fired=0 if self.duties is None else self.duties.scheduling.fired,
            woken=0 if self.duties is None else self.duties.waking.woken,
            **self.isolated.pools.figures,
        )

    async def announce(self) -> None:
        """Bring what the engine knows of this worker up to date, if anything changed."""
        session = self.sessions.current
        if session is None or session.lost:
            return
        card = self._card(session.id)
        if card != self._announced:
            try:
                await self._engine.announce(card)
                self._announced = card
            except EngineUnavailable as error:
                log.warning("cannot announce: %s", error)

    async def _publish(self) -> None:
        patience = Patience(self._jitter)
        while True:
            try:
                await self._engine.publish(self._app.cards)
                await declare(self._engine, self._app.schedules, self._random)
                return
            except EngineUnavailable as error:
                log.warning("cannot publish the tasks: %s", error)
                await patience.wait()

    async def _watch(self) -> None:
        """Give up sessions that cannot be renewed. Until cancelled; it asks the engine nothing. Raises WorkerDeaf."""
        while True:
            await asyncio.sleep(self._options.session_ttl_ms / 1000 / CHECKS_PER_TTL)
            self.sessions.check()
            self.watchdog.check()

    async def _tell(self) -> None:
        """Announce what has changed. Until cancelled. Raises EngineBroken."""
        while True:
            await asyncio.sleep(self._options.session_ttl_ms / 1000 / BEATS_PER_TTL)
            await self._probe()
            await self.announce()

    async def _probe(self) -> None:
        """An engine that must be opened anew cannot be waited for."""
        try:
            await self._engine.submit([])
        except EngineBroken:
            raise
        except EngineUnavailable:
            return  # who needs it tries, and tells

    def _card(self, session: str) -> WorkerCard:
        return WorkerCard(
            session=session,
            name=self._name,
            queues=tuple(self._queues),
            tasks=tuple(card.name for card in self._app.cards),
            slots=self._slots(),
            running=len(self.executor.running),
            threads=self.pool.counts.alive,
            state=self._visible_state(),
            host=socket.gethostname(),
            pid=os.getpid(),
            ttl_ms=self._options.session_ttl_ms,
            schedules=tuple(schedule.id for schedule in self._app.schedules),
            labels=self._standing.labels,
            devices=self._standing.devices,
            warm=self.isolated.pools.warm,
        )

    def _slots(self) -> int:
        """How many jobs it can run at once, by the kinds of tasks that there are."""
        alone = (work.task for name, work in self.works.items() if not is_own(name))
        kinds = {task.on_loop for task in alone}
        loop, threads = self._options.concurrency if True in kinds else 0, self.pool.limit if False in kinds else 0
        return loop + threads + self.batchers.slots + self.isolated.pools.slots

    def _visible_state(self) -> str:
        full = self.state == "ready" and all(group.free <= 0 for group in self._groups)
        return "busy" if full else self.state

    def _ask(self, attempt: Attempt, reason: Reason, /) -> None:
        self.executor.ask(attempt, reason)

    def _freed(self) -> None:
        self.poller.poke()
        self.news.set()

    def _ended(self, attempt: Attempt) -> None:
        if attempt.mail is not None:
            self.post.clear(attempt)

    def _settled(self) -> None:
        self.sessions.settled()
        self.news.set()
        self.poller.poke()

"""Leases jobs as room for them becomes free, and only then. Woken by hints and by freed room; it does not poll.

The next lease goes out while commits are still in flight. An empty queue is asked again when a hint tells of it, or
after 15 s: a lost hint costs latency, never a job. Hints are waited for only while there is room and nothing to ask
for: an engine that wakes one worker for one job must not wake one that is full.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence

from ropeway.domain.errors import EngineUnavailable, OutcomeUnknown
from ropeway.domain.lease import Assignment, LeaseRequest
from ropeway.engines.base import Engine
from ropeway.engines.hints import tell_unhinted
from ropeway.runtime.attempt import Session
from ropeway.runtime.inbox import Wake
from ropeway.runtime.patience import Jitter, Patience
from ropeway.runtime.sessions import Sessions
from ropeway.runtime.slots import Group

__all__ = ["LEASE_BATCH", "Poller"]

log = logging.getLogger("ropeway.worker")

LEASE_BATCH = 256  # past this a lease costs no less a job, and the loop stands still longer
_FULL = ""  # the hint to ourselves that there is nothing to wait for any more


class Poller:
    """Asks for work. `start` takes what was leased, under which session.

    `polls` counts the questions that were answered. An idle worker asks again after `safety_s` seconds; `safety_finds`
    counts how often that found work of which no hint had told.
    """

    def __init__(
        self,
        engine: Engine,
        sessions: Sessions,
        groups: Sequence[Group],
        worker: str,
        start: Callable[[Assignment, Session], None],
        jitter: Jitter,
        safety_s: float,
    ) -> None:
        self.polls = 0
        self.safety_finds = 0
        self._engine = engine
        self._sessions = sessions
        self._groups = groups
        self._worker = worker
        self._start = start
        self._jitter = jitter
        self._safety_s = safety_s
        self._patience = Patience(jitter)
        self._wake = Wake()
        self._stopped = False

    @property
    def is_due(self) -> bool:
        """Whether it should be asking from time to time: it has room, and was not stopped."""
        return not self._stopped and any(group.free > 0 for group in self._groups)

    def poke(self) -> None:
        """Room became free. In the loop."""
        self._wake.set()

    def refresh(self) -> None:
        """Look everywhere again: under a new session, since one that the engine has forgotten gets nothing."""
        for group in self._groups:
            group.hungry, group.unasked = True, False
        self._wake.set()

    def stop(self) -> None:
        """Lease no more. A lease that is in flight still comes in, and is started: the drain takes it from there."""
        self._stopped = True
        self._wake.set()
        self._settle()

    async def run(self) -> None:
        """Until stopped, never with a lease in flight that nobody will look at."""
        self._wake.set()
        while not self._stopped:
            await self._wake.wait()
            for group in self._groups:
                group.asking = True
                await self._fill(group)
                group.asking = False
                for looked in group.looked:
                    looked()
            self._settle()

    async def listen(self) -> None:
        """Mark queues that may hold work again. Until cancelled."""
        await asyncio.gather(*map(self._hear, self._groups))

    async def _hear(self, group: Group) -> None:
        with self._engine.listen(*(f"queue:{queue}" for queue in group.queues)) as group.hints:
            group.hints.heard = functools.partial(self._told, group)
            self.refresh()  # for what came before we listened
            while True:
                await group.idle.wait()
                while group.waits and not self._stopped:
                    if not await group.hints.wait(self._safety_s):
                        group.hungry, group.unasked = True, True
                        self._wake.set()

    def _told(self, group: Group, topic: str) -> None:
        """A hint tells of work: straight from the board, since each task between is a turn of the loop on its way."""
        if topic != _FULL:
            group.hungry, group.unasked = True, False
            if group.free > 0:
                self._wake.set()

    def _settle(self) -> None:
        """Have those groups wait for hints that should, and no others."""
        for group in self._groups:
            if group.waits and not self._stopped:
                group.idle.set()
            elif group.hints is not None:
                group.hints.fire(_FULL)

    async def _fill(self, group: Group) -> None:
        """Lease for these queues until the room or the work is at an end."""
        while group.hungry and not self._stopped:
            session = self._sessions.current
            limit = min(group.free, LEASE_BATCH)
            if session is None or limit < 1:
                return
            group.hungry = False  # before we look: a hint during the call is news
            unasked, group.unasked = group.unasked, False
            leased = await self._lease(group, session, limit)
            if unasked and leased:
                self._tell_unhinted(leased)
            if session.lost:  # while the reply was on its way: the engine gives these jobs to others
                return
            for assignment in leased:
                self._start(assignment, session)
            if len(leased) == limit:
                group.hungry = True

    def _tell_unhinted(self, leased: Sequence[Assignment]) -> None:
        """Count and log work of which no hint had told."""
        first = leased[0]
        found = f"{first.job_id}, the first of {len(leased)} jobs for worker {self._worker},"
        if tell_unhinted(log, f"queue:{first.queue}", found, first.started_at_ms - first.created_at_ms):
            self.safety_finds += 1

    async def _lease(self, group: Group, session: Session, limit: int) -> list[Assignment]:
        try:
            leased = await self._engine.lease(LeaseRequest(session.id, self._worker, group.queues, limit))
        except OutcomeUnknown:
            # It may have leased jobs that we know nothing of. Under a session that lives they would never be rescued.
            log.warning("a lease may have been granted and lost on the way: changing sessions")
            self._sessions.retire(session)
            group.hungry = True
            return []
        except EngineUnavailable as error:
            log.warning("cannot lease: %s", error)
            group.hungry = True
            await self._patience.wait()
            return []
        self._patience = Patience(self._jitter)
        self.polls += 1
        return leased

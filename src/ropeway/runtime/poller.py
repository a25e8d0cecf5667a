"""Leases jobs as room for them becomes free, and only then. Woken by hints and by freed room; it does not poll.

The next lease goes out while commits are still in flight. An empty queue is asked again when a hint tells of it, or
after 15 s: a lost hint costs latency, never a job.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ropeway.domain.errors import EngineUnavailable, OutcomeUnknown
from ropeway.domain.lease import Assignment, LeaseRequest
from ropeway.engines.base import Engine
from ropeway.runtime.attempt import Session
from ropeway.runtime.inbox import Wake
from ropeway.runtime.patience import Jitter, Patience
from ropeway.runtime.sessions import Sessions
from ropeway.runtime.slots import Group

__all__ = ["LEASE_BATCH", "SAFETY_POLL_S", "Poller"]

log = logging.getLogger("ropeway.worker")

LEASE_BATCH = 256  # past this a lease costs no less a job, and the loop stands still longer
SAFETY_POLL_S = 15.0  # reliability.md, 17: hints may be lost


class Poller:
    """Asks for work. `start` takes what was leased, under which session."""

    def __init__(
        self,
        engine: Engine,
        sessions: Sessions,
        groups: Sequence[Group],
        worker: str,
        start: Callable[[Assignment, Session], None],
        jitter: Jitter,
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._groups = groups
        self._worker = worker
        self._start = start
        self._jitter = jitter
        self._patience = Patience(jitter)
        self._wake = Wake()
        self._stopped = False

    def poke(self) -> None:
        """Room became free. In the loop."""
        self._wake.set()

    def refresh(self) -> None:
        """Look everywhere again: under a new session, since one that the engine has forgotten gets nothing."""
        for group in self._groups:
            group.hungry = True
        self._wake.set()

    def stop(self) -> None:
        """Lease no more. A lease that is in flight still comes in, and is started: the drain takes it from there."""
        self._stopped = True
        self._wake.set()

    async def run(self) -> None:
        """Until stopped, never with a lease in flight that nobody will look at."""
        self._wake.set()
        while not self._stopped:
            await self._wake.wait()
            for group in self._groups:
                await self._fill(group)

    async def listen(self) -> None:
        """Mark queues that may hold work again. Until cancelled."""
        topics = {f"queue:{queue}": group for group in self._groups for queue in group.queues}
        with self._engine.listen(*topics) as hints:
            self.refresh()  # for what came before we listened
            while True:
                heard = await hints.wait(SAFETY_POLL_S) or topics.keys()
                for topic in heard:
                    topics[topic].hungry = True
                self._wake.set()

    async def _fill(self, group: Group) -> None:
        """Lease for these queues until the room or the work is at an end."""
        while group.hungry and not self._stopped:
            session = self._sessions.current
            limit = min(group.free, LEASE_BATCH)
            if session is None or limit < 1:
                return
            group.hungry = False  # before we look: a hint during the call is news
            leased = await self._lease(group, session, limit)
            if session.lost:  # while the reply was on its way: the engine gives these jobs to others
                return
            for assignment in leased:
                self._start(assignment, session)
            if len(leased) == limit:
                group.hungry = True

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
        return leased

"""Keeps sessions alive from a thread of its own, so that code which blocks the event loop loses nothing."""

from __future__ import annotations

import asyncio
import logging
import threading

from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable
from ropeway.engines.base import Renewer
from ropeway.runtime.attempt import Session
from ropeway.runtime.inbox import Inbox
from ropeway.runtime.sessions import Sessions

__all__ = ["BEATS_PER_TTL", "Keeper"]

log = logging.getLogger("ropeway.worker")

GONE_S = 1.0  # a renewal that hangs for longer is left to end with the process
BEATS_PER_TTL = 5  # every 1.8 s of 9: four may fail before the session is lost


class Keeper:
    """Renews each session five times in its life and passes on, into the loop, what the engine says.

    `answered`: whether the engine has answered all that was asked of it in the last beat.
    """

    def __init__(self, renewer: Renewer, sessions: Sessions, inbox: Inbox, clock: Clock, ttl_ms: int) -> None:
        self.beats = 0
        self.answered = False
        self._renewer = renewer
        self._sessions = sessions
        self._inbox = inbox
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ropeway-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Renew no more. Returns at once; a renewal that is in flight ends by itself."""
        self._stopped.set()
        if self._thread.ident is None:  # it never began, so nobody else lets go of the connection
            self._renewer.close()

    async def gone(self) -> None:
        """Until the thread has let go of its connection, or has not for a second."""
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, GONE_S)

    def beat(self) -> None:
        """Renew every session once. A failed try is left marked on its session, for `Sessions.check`."""
        sessions = [session for session in self._sessions.held if not session.lost]
        for session in sessions:
            session.trying = True
        failed = 0
        for session in sessions:
            if not self._renew(session):
                failed += 1
                if not session.refused:
                    break  # the engine is away: it would keep us as long for each of the others
        self.answered = bool(sessions) and not failed
        self.beats += 1

    def _renew(self, session: Session) -> bool:
        """Whether the engine answered."""
        started_s = self._clock.monotonic_s()
        try:
            renewal = self._renewer.renew(session.id, self._ttl_ms)
        except Exception as error:
            session.refused = not isinstance(error, EngineUnavailable)
            log.warning("cannot renew session %s: %s", session.id, error)
            return False
        session.trying = session.refused = False
        session.renewed_at_s = started_s
        if not renewal.alive:
            session.lost = True  # now, not when the loop has time: it must not commit any more
        if not renewal.alive or renewal.cancelled:
            self._inbox.post(self._sessions.deliver, session, renewal)
        return True

    def _run(self) -> None:
        while not self._stopped.wait(self._ttl_ms / 1000 / BEATS_PER_TTL):
            self.beat()
        self._renewer.close()

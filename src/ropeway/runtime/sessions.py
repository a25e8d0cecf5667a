"""The sessions that this worker holds: opened, renewed, lost, and exchanged for new ones.

Mostly there is one. A second stands beside it after a lease whose reply was lost: jobs that the engine may have given
to the old session, and of which we know nothing, are rescued when that one is closed, and it is closed as soon as the
attempts that we do know have ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.ids import RandomBytes
from ropeway.domain.lease import Renewal
from ropeway.domain.worker import WorkerCard
from ropeway.engines.base import Engine
from ropeway.engines.hints import Listener
from ropeway.runtime.attempt import Attempt, Reason, Session
from ropeway.runtime.inbox import Wake
from ropeway.runtime.patience import Jitter, Patience
from ropeway.runtime.stopping import Ask

__all__ = ["Sessions", "fence_s"]

log = logging.getLogger("ropeway.worker")

FENCE_MARGIN_S = 2.0  # architecture.md, 7: one whose renewals fail for lease - 2 s fences itself
HEAR_S = 60.0  # how long to wait for a hint at most; the keeper tells of cancels within a beat anyway


def fence_s(ttl_ms: int) -> float:
    """Seconds without a renewal after which a session is given up, well before the engine may give it to others."""
    ttl_s = ttl_ms / 1000
    return max(ttl_s - FENCE_MARGIN_S, ttl_s / 2)


class Sessions:
    """Holds this worker's sessions. `held` is a snapshot that the keeper's thread reads."""

    def __init__(
        self,
        engine: Engine,
        *,
        ttl_ms: int,
        outage_s: float,
        card: Callable[[str], WorkerCard],
        clock: Clock,
        random: RandomBytes,
        jitter: Jitter,
    ) -> None:
        self.current: Session | None = None
        self.held: tuple[Session, ...] = ()
        self.opened: list[Callable[[str], None]] = []
        self.closed: list[Callable[[str], None]] = []
        self._engine = engine
        self._ttl_ms = ttl_ms
        self._outage_s = max(outage_s, fence_s(ttl_ms))
        self._card = card
        self._clock = clock
        self._random = random
        self._jitter = jitter
        self._ask: Ask = _nobody
        self._attempts: Callable[[], Iterable[Attempt]] = tuple
        self._to_close: list[str] = []
        self._wake = Wake()
        self._hints: Listener | None = None

    def attach(self, ask: Ask, attempts: Callable[[], Iterable[Attempt]]) -> None:
        """Who runs the attempts: how to ask one to stop, and which there are."""
        self._ask, self._attempts = ask, attempts

    async def open(self) -> None:
        """Open a session to lease under. Tries until the engine answers."""
        session = Session(f"ses_{self._random(12).hex()}", self._clock.monotonic_s())
        patience = Patience(self._jitter)
        while True:
            session.renewed_at_s = self._clock.monotonic_s()
            try:
                await self._engine.announce(self._card(session.id))
                break
            except EngineUnavailable as error:
                log.warning("cannot open a session: %s", error)
                await patience.wait()
        self.held = (*self.held, session)
        self._switch(session)
        for told in self.opened:
            told(session.id)

    async def run(self) -> None:
        """Open a new session whenever there is none, and close those that have served. Until cancelled."""
        while True:
            await self._wake.wait()
            if self.current is None:
                await self.open()
            await self._close_served()

    async def hear(self) -> None:
        """Learn of cancels at once, by hint. Until cancelled."""
        while True:
            session = self.current
            topics = () if session is None else (f"worker:{session.id}",)
            with self._engine.listen(*topics) as self._hints:
                while session is self.current and (await self._hints.wait(HEAR_S) or session is not self.current):
                    if session is not None:
                        await self._renew(session)

    def deliver(self, session: Session, renewal: Renewal) -> None:
        """Act on what a renewal told."""
        if not renewal.alive:
            self.lose(session)
            return
        for job_id in renewal.cancelled:
            attempt = session.attempts.get(job_id)
            if attempt is not None:
                self._ask(attempt, Reason.cancel)

    def check(self) -> None:
        """Give up a session that could not be renewed for so long that the engine may soon give its jobs to others.

        An engine that cannot be reached gives them to nobody: its sessions are kept for `outage_s`. Only failed tries
        count. When no try was made, because user code held the interpreter, a supervisor may have renewed it all
        along, and the engine's own fence guards it in any case.
        """
        now_s = self._clock.monotonic_s()
        for session in self.held:
            silent_s = now_s - session.renewed_at_s
            if session.trying and silent_s > (fence_s(self._ttl_ms) if session.refused else self._outage_s):
                session.overdue += 1
                if session.overdue > 1:  # the keeper had a whole period to come through after a standstill
                    self.lose(session)
            else:
                session.overdue = 0

    def lose(self, session: Session) -> None:
        """The session is gone: stop its attempts, commit none of them, and go on under a new one."""
        session.lost = True
        if session not in self.held:
            return
        log.error("session %s is lost: its %d jobs run elsewhere", session.id, len(session.attempts))
        self._let_go(session)
        for attempt in tuple(self._attempts()):
            if attempt.session is session:
                self._ask(attempt, Reason.lost)
        self._to_close.append(session.id)

    def retire(self, session: Session) -> None:
        """Lease no more under this session, and close it when the attempts that it holds have ended."""
        session.retiring = True
        if self.current is session:
            self._switch(None)

    def settled(self) -> None:
        """Attempts are out of the books: a session that retires may have served."""
        if len(self.held) > 1 or self.current is None:
            self._wake.set()

    async def end(self) -> None:
        """Close all sessions, trying once: what they still hold is rescued at once, or when they expire."""
        ending, self.held, self.current = self.held, (), None
        self._to_close += [session.id for session in ending]
        await self._close_waiting()

    async def _renew(self, session: Session) -> None:
        try:
            self.deliver(session, await self._engine.renew(session.id, self._ttl_ms))
        except EngineUnavailable:
            return  # the keeper will tell, or will be told

    async def _close_served(self) -> None:
        for session in self.held:
            if session.retiring and not session.attempts:
                self._let_go(session)
                self._to_close.append(session.id)
        await self._close_waiting()

    async def _close_waiting(self) -> None:
        ids, self._to_close = self._to_close, []
        for session_id in ids:
            for told in self.closed:
                told(session_id)
            try:
                await self._engine.close(session_id)
            except EngineUnavailable:
                log.warning("cannot close session %s: it will expire", session_id)

    def _let_go(self, session: Session) -> None:
        self.held = tuple(other for other in self.held if other is not session)
        if self.current is session:
            self._switch(None)
        self._wake.set()

    def _switch(self, session: Session | None) -> None:
        self.current = session
        self._wake.set()
        if self._hints is not None:
            self._hints.close()  # wakes `hear`, which listens for another session then


def _nobody(attempt: Attempt, reason: Reason, /) -> None:
    raise AssertionError("nobody runs attempts yet")

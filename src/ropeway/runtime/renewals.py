"""A supervisor's renewals, in a thread of their own: an engine that is away holds up nothing else that it does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable

from ropeway.domain.errors import EngineUnavailable
from ropeway.engines.base import Renewer

__all__ = ["Renewals"]

log = logging.getLogger("ropeway.supervisor")

END_S = 12.0  # for the last word to the engine; what it does not hear expires


class Renewals:
    """Renews sessions and closes those of the dead, one call at a time. It owns the renewer."""

    def __init__(self, renewer: Renewer, ttl_ms: int) -> None:
        self._renewer = renewer
        self._ttl_ms = ttl_ms
        self._to_renew: list[str] = []
        self._to_close: list[str] = []
        self._due = False  # there is news
        self._ended = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ropeway-renewals", daemon=True)
        self._thread.start()

    def renew(self, sessions: Iterable[str]) -> None:
        """Renew these, soon; a former wish that has not been begun is forgotten. Closings that failed go first."""
        with self._news:
            self._to_renew = list(sessions)
            self._told()

    def close(self, sessions: Collection[str]) -> None:
        """Close these: the engine rescues their jobs now. If it does not answer, again with each renewal."""
        with self._news:
            self._to_close += sessions
            self._to_renew = [session for session in self._to_renew if session not in sessions]
            self._told()

    def end(self) -> None:
        """Close what is to be closed, trying once more, and let go of the renewer. Waits for seconds at the most."""
        with self._news:
            self._ended = True
            self._told()
        self._thread.join(END_S)

    def _told(self) -> None:
        self._due = True
        self._news.notify()

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._due)
                self._due = False
                renewing, self._to_renew = self._to_renew, []
                closing, self._to_close = self._to_close, []
                ended = self._ended
            failed = self._close_all(closing)
            if ended:
                self._renewer.close()
                return
            if failed:
                with self._news:
                    self._to_close = [*failed, *self._to_close]
            else:  # the engine is there
                self._renew_all(renewing)

    def _close_all(self, sessions: list[str]) -> list[str]:
        """Those that could not be closed."""
        for place, session in enumerate(sessions):
            try:
                self._renewer.close_session(session)
            except Exception as error:
                log.warning("cannot close session %s: %s", session, error)
                return sessions[place:]
        return []

    def _renew_all(self, sessions: list[str]) -> None:
        for session in sessions:
            try:
                self._renewer.renew(session, self._ttl_ms)
            except EngineUnavailable as error:
                log.warning("cannot renew sessions: %s", error)  # the children renew too, and know what it means
                return
            except Exception as error:
                log.warning("cannot renew session %s: %s", session, error)

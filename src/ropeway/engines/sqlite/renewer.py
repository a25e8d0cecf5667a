"""Renewals from outside the event loop: another thread, or another process that has only the file's path."""

from __future__ import annotations

import threading
from pathlib import Path

from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.ids import system_random
from ropeway.domain.lease import Renewal
from ropeway.engines.sqlite.connection import SqliteOptions, open_existing
from ropeway.engines.sqlite.scribe import Operation, Scribe
from ropeway.engines.sqlite.sessions import Renew
from ropeway.engines.sqlite.verbs import CLOSE, RENEW, Answer, Verb, Wish
from ropeway.engines.sqlite.wake import Peers, wake_directory

__all__ = ["SqliteRenewer"]


class SqliteRenewer:
    """Renews and closes sessions of the engine on this file, blocking, from any thread.

    Raises EngineUnavailable when the file is not there, or busy for longer than the timeout; then try again.
    """

    def __init__(self, path: str | Path, clock: Clock | None = None, options: SqliteOptions | None = None) -> None:
        path = Path(path).resolve()
        options = options or SqliteOptions()
        self._lock = threading.Lock()
        self._connection = open_existing(path, options)
        self._scribe = Scribe(self._connection, clock or SystemClock(), system_random, options)
        directory = wake_directory(path)
        self._peers = None if directory is None else Peers(directory)

    def renew(self, session: str, ttl_ms: int) -> Renewal:
        """As `Execution.renew`."""
        return self._do(RENEW, Renew(session, ttl_ms))

    def close_session(self, session: str) -> None:
        """As `Execution.close`: for a supervisor that saw its worker die."""
        self._do(CLOSE, session)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._connection.close()
            if self._peers is not None:
                self._peers.close()

    def _do(self, verb: Verb[Wish, Answer], wish: Wish) -> Answer:
        with self._lock:
            (answer,), topics = self._scribe.perform([Operation(verb, [wish], None)])
            if self._peers is not None and topics:
                self._peers.tell(topics)
        if isinstance(answer, Exception):
            raise answer
        given: list[Answer] = answer
        return given[0]

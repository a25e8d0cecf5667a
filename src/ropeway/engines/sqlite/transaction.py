"""One write transaction, as the operations in it share it: the connection, the time, counts, limits, the hints."""

from __future__ import annotations

import apsw

from ropeway.domain.ids import RandomBytes
from ropeway.engines.sqlite.ledger import Ledger
from ropeway.engines.sqlite.limits import Limits
from ropeway.engines.sqlite.statements import Statements
from ropeway.engines.sqlite.topics import Topics

__all__ = ["Transaction"]


class Transaction(Statements):
    """What a writing operation gets. It never commits: whoever runs it does, and flushes it before."""

    __slots__ = ("_limits", "ledger", "now_ms", "random", "topics")

    def __init__(self, connection: apsw.Connection, now_ms: int, random: RandomBytes) -> None:
        super().__init__(connection)
        self.now_ms = now_ms
        self.random = random
        self.ledger = Ledger(self)
        self.topics = Topics()
        self._limits: Limits | None = None

    @property
    def limits(self) -> Limits:
        """Made when the first is touched: most transactions meet none."""
        if self._limits is None:
            self._limits = Limits(self, self.topics, self.now_ms)
        return self._limits

    def settle(self) -> None:
        """At the end of an operation in which attempts may have ended: whoever waits for their places is called."""
        if self._limits is not None:
            self._limits.settle()

    def flush(self) -> None:
        """Write what was noted, before anything reads it and at the end."""
        self.ledger.flush()
        if self._limits is not None:
            self._limits.flush()

"""One write transaction, as the operations in it share it: the connection, the time, the counts, the hints."""

from __future__ import annotations

import apsw

from ropeway.domain.ids import RandomBytes
from ropeway.engines.sqlite.ledger import Ledger
from ropeway.engines.sqlite.statements import Statements
from ropeway.engines.sqlite.topics import Topics

__all__ = ["Transaction"]


class Transaction(Statements):
    """What a writing operation gets. It never commits: whoever runs it does, and flushes the ledger before."""

    __slots__ = ("ledger", "now_ms", "random", "topics")

    def __init__(self, connection: apsw.Connection, now_ms: int, random: RandomBytes) -> None:
        super().__init__(connection)
        self.now_ms = now_ms
        self.random = random
        self.ledger = Ledger(self)
        self.topics = Topics()

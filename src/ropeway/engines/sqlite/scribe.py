"""Runs operations in transactions: all that wait in one, or each in its own when one of them spoils it.

What a caller is told: an error before the commit means that nothing has happened; one of the commit itself, or after
it, that it may have (`OutcomeUnknown`). A commit that the disk refused to sync is the last: what the system then
holds in memory and what is on the disk may differ for good, so that the engine must be opened anew (the fsync error
is told once).
"""

from __future__ import annotations

import contextlib
from asyncio import Future
from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw

from ropeway.domain.clock import Clock
from ropeway.domain.errors import OutcomeUnknown
from ropeway.domain.ids import RandomBytes
from ropeway.engines.base import EngineBroken
from ropeway.engines.sqlite.connection import SqliteOptions, begin, translated
from ropeway.engines.sqlite.topics import Topics
from ropeway.engines.sqlite.transaction import Transaction
from ropeway.engines.sqlite.verbs import Verb

__all__ = ["Done", "Operation", "Scribe"]

_HOPELESS = (apsw.BusyError, apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.ReadOnlyError, OutcomeUnknown)
"""No operation is to blame for these: running each alone would only take longer."""


class Operation(NamedTuple):
    """Some wishes of one caller, and where their answers go: nowhere, when nobody waits."""

    verb: Verb[Any, Any]
    wishes: Sequence[Any]
    future: Future[list[Any]] | None


class Done(NamedTuple):
    """For each operation its answers, or why there are none; and the hints that are owed."""

    answers: list[list[Any] | Exception]
    topics: Topics


class Scribe:
    """The writing side of an engine, in whichever thread owns the connection.

    `refusal` is why nothing is written any more, None while it is; to be read from any thread.
    """

    def __init__(self, connection: apsw.Connection, clock: Clock, random: RandomBytes, options: SqliteOptions) -> None:
        self._connection = connection
        self._clock = clock
        self._random = random
        self._options = options
        self._is_durable = True  # as the connection was opened
        self.refusal: str | None = None

    def perform(self, operations: Sequence[Operation]) -> Done:
        """Run these operations; never raises for what goes wrong in them."""
        try:
            return self._together(operations)
        except Exception as error:
            if len(operations) == 1 or isinstance(error, _HOPELESS):
                return Done([translated(error) for _ in operations], Topics())
        return self._apart(operations)

    def _apart(self, operations: Sequence[Operation]) -> Done:
        """Each operation in a transaction of its own, so that only those fail that must."""
        topics = Topics()
        answers: list[list[Any] | Exception] = []
        for operation in operations:
            done = self.perform([operation])
            answers += done.answers
            topics.add(done.topics)
        return Done(answers, topics)

    def _together(self, operations: Sequence[Operation]) -> Done:
        if self.refusal is not None:
            raise EngineBroken(self.refusal)
        self._sync(any(operation.verb.durable for operation in operations))
        begin(self._connection, self._options.busy_timeout_s)
        try:
            tx = Transaction(self._connection, self._clock.now_ms(), self._random)
            answers = _run(tx, operations)
            tx.flush()
            self._options.failpoint("pre_commit")
        except BaseException:
            self._roll_back()
            raise
        self._commit()
        return Done(answers, tx.topics)

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
            self._options.failpoint("post_commit")
        except Exception as error:
            self._roll_back()
            if isinstance(error, apsw.IOError):
                self.refusal = f"the disk failed in a commit ({error}): open the engine again"
            raise OutcomeUnknown(f"the commit failed: {error}") from error

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # SQLite has rolled back by itself after some errors
            with contextlib.suppress(apsw.Error):
                self._connection.execute("ROLLBACK")

    def _sync(self, durable: bool) -> None:
        """Whether the next commit waits for the disk (0.25 ms against 0.02 ms here)."""
        if durable != self._is_durable:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_durable = durable


def _run(tx: Transaction, operations: Sequence[Operation]) -> list[list[Any] | Exception]:
    """Run the operations verb by verb, all wishes for one verb as one batch."""
    if len(operations) == 1:
        return [operations[0].verb.run(tx, operations[0].wishes)]
    answers: list[list[Any] | Exception] = [[] for _ in operations]
    for verb in sorted({operation.verb for operation in operations}, key=lambda verb: verb.order):
        places = [place for place, operation in enumerate(operations) if operation.verb is verb]
        given = iter(verb.run(tx, [wish for place in places for wish in operations[place].wishes]))
        for place in places:
            answers[place] = [next(given) for _ in operations[place].wishes]
    return answers

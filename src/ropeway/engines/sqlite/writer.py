"""The writer: one thread that owns the writing connection, and group commit.

Calls of one tick of the loop are handed over together; what comes while a transaction runs waits for the next. So
the more callers there are, the more of them share a transaction and its fsync. A transaction's futures are resolved,
and its hints fired, by one call into the loop; then the other processes are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import apsw

from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.ids import RandomBytes
from ropeway.domain.lease import Assignment, Commit, Outcome
from ropeway.engines.base import EngineBroken
from ropeway.engines.hints import Board
from ropeway.engines.sqlite.connection import SqliteOptions, open_writer, translated
from ropeway.engines.sqlite.scribe import Done, Operation, Scribe
from ropeway.engines.sqlite.verbs import COMMIT, LEASE, Verb
from ropeway.engines.sqlite.wake import Peers

__all__ = ["Writer"]

Wish = TypeVar("Wish")
Answer = TypeVar("Answer")

_GROUP_WISHES = 4096  # in one transaction: more save nothing, and would keep other processes waiting
_OWED_WAIT_S = 0.05  # between attempts to tell a peer, whose buffer was full, that it missed something


class Writer:
    """Takes operations in the loop that opened it, and writes them down in its own thread."""

    def __init__(self, path: Path, clock: Clock, random: RandomBytes, options: SqliteOptions, board: Board) -> None:
        self._path = path
        self._clock = clock
        self._random = random
        self._options = options
        self._board = board
        self._peers: Peers | None = None
        self._gathered: list[Operation] = []
        self._inbox: SimpleQueue[list[Operation] | None] = SimpleQueue()
        self._scribe: Scribe | None = None
        self._is_open = False

    async def start(self) -> None:
        """Open the file, in the thread. Raises EngineUnavailable."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._live, args=(opened,), name="ropeway-sqlite-writer", daemon=True).start()
        try:
            await opened
        except BaseException:
            self._inbox.put(None)  # a thread that opened all the same, for nobody
            raise
        self._is_open = True

    def tell(self, peers: Peers) -> None:
        """Tell these other processes of every transaction from now on."""
        self._peers = peers

    async def stop(self) -> None:
        """Write down what was accepted, then let go of the file."""
        if self._is_open:
            self._is_open = False
            self._hand_over()
            self._inbox.put(None)
            await asyncio.shield(self._ended)

    async def do(self, verb: Verb[Wish, Answer], wishes: Sequence[Wish]) -> list[Answer]:
        """The answers to these wishes, once they are as durable as the verb asks. None at all ask whether it writes."""
        if not self._is_open:
            raise EngineUnavailable("the engine is not open")
        if not wishes:
            if self._scribe is not None and self._scribe.refusal is not None:
                raise EngineBroken(self._scribe.refusal)
            return []
        future: asyncio.Future[list[Answer]] = self._loop.create_future()
        self._gather(Operation(verb, wishes, future))
        return await future

    def _gather(self, operation: Operation) -> None:
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(operation)

    def _hand_over(self) -> None:
        if self._gathered:
            self._inbox.put(self._gathered)
            self._gathered = []

    # -- in the writer's thread

    def _live(self, opened: asyncio.Future[None]) -> None:
        try:
            with contextlib.closing(open_writer(self._path, self._options)) as connection:
                self._tell_loop(_succeed, opened)
                self._scribe = Scribe(connection, self._clock, self._random, self._options)
                self._serve(self._scribe)
                _empty_wal(connection)
        except Exception as error:
            self._tell_loop(_fail, opened, translated(error))
        finally:
            if self._peers is not None:
                self._peers.close()
            self._tell_loop(_succeed, self._ended)

    def _serve(self, scribe: Scribe) -> None:
        waiting: deque[Operation] = deque()
        is_last = False
        while waiting or not is_last:
            if not is_last:
                is_last = self._receive(waiting)
            if group := _group(waiting):
                done = scribe.perform(group)
                if not self._tell_loop(self._settle, group, done):
                    return
                if self._peers is not None and done.topics:
                    self._peers.tell(done.topics)

    def _receive(self, waiting: deque[Operation]) -> bool:
        """Take all that has been handed over, waiting for it if nothing is. True when nothing comes after it."""
        try:
            operations = self._inbox.get_nowait() if waiting else self._wait()
            while operations is not None:
                waiting.extend(operations)
                operations = self._inbox.get_nowait()
        except Empty:
            return False
        return True

    def _wait(self) -> list[Operation] | None:
        """What is handed over next. Meanwhile those are told that missed a hint."""
        while self._peers is not None and self._peers.owed:
            try:
                return self._inbox.get(timeout=_OWED_WAIT_S)
            except Empty:
                self._peers.make_good()
        return self._inbox.get()

    def _tell_loop(self, callback: Callable[..., None], *args: Any) -> bool:
        """Call back in the loop; False when there is none any more."""
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop was closed without shutting the engine
            return False
        return True

    # -- back in the loop

    def _settle(self, operations: Sequence[Operation], done: Done) -> None:
        for operation, answer in zip(operations, done.answers, strict=True):
            future = operation.future
            if future is None or future.done():
                self._give_back(operation, answer)
            elif isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._board.fire(done.topics.heard(self._board.hears))

    def _give_back(self, operation: Operation, answer: list[Any] | Exception) -> None:
        """A caller has gone. What it leased, nobody would run until its session ends: back in line with it."""
        if operation.verb is not LEASE or isinstance(answer, Exception):
            return
        leased: list[Assignment] = [assignment for assignments in answer for assignment in assignments]
        if leased and self._is_open:
            release = [Commit(assignment.lease, Outcome("release")) for assignment in leased]
            self._gather(Operation(COMMIT, release, None))


def _group(waiting: deque[Operation]) -> list[Operation]:
    """The next operations for one transaction, off the queue. Those whose caller has gone are dropped: none began."""
    group: list[Operation] = []
    wishes = 0
    while waiting and wishes < _GROUP_WISHES:
        operation = waiting.popleft()
        if operation.future is None or not operation.future.cancelled():
            group.append(operation)
            wishes += len(operation.wishes)
    return group


def _empty_wal(connection: apsw.Connection) -> None:
    """Bring the WAL into the file, if nobody else is at it."""
    with contextlib.suppress(apsw.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)

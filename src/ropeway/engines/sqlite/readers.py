"""Connections that only read: one in the loop's own thread for what costs microseconds, others for what may scan."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import apsw

from ropeway.domain.errors import EngineUnavailable
from ropeway.engines.sqlite.connection import SqliteOptions, open_reader, translated
from ropeway.engines.sqlite.statements import Statements

__all__ = ["Readers"]

P = ParamSpec("P")
R = TypeVar("R")

_THREADS = 2  # so that one long scan does not hold up the next question


class Readers:
    """Asks questions, at once or in a thread."""

    def __init__(self, path: Path, options: SqliteOptions) -> None:
        self._path = path
        self._options = options
        self._pool = ThreadPoolExecutor(_THREADS, "ropeway-sqlite-reader")
        self._own = threading.local()
        self._connections: list[apsw.Connection] = []
        self._here: apsw.Connection | None = None

    def open(self) -> None:
        """Open the loop's connection. Raises EngineUnavailable."""
        self._here = self._connect()

    def at_once(self, question: Callable[Concatenate[Statements, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The answer, found in this thread."""
        if self._here is None:
            raise EngineUnavailable("the engine is not open")
        return _ask(self._here, question, *args, **kwargs)

    async def in_thread(
        self, question: Callable[Concatenate[Statements, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The answer, found in another thread."""
        if self._here is None:
            raise EngineUnavailable("the engine is not open")
        ask = self._ask_here
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: ask(question, *args, **kwargs))

    async def close(self) -> None:
        """Wait for the questions that are being answered, and let go of the file."""
        self._here = None
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def data_version(self) -> int:
        """Changes whenever another connection has written."""
        return self.at_once(_data_version)

    def _ask_here(self, question: Callable[Concatenate[Statements, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        connection: apsw.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._connect()
        return _ask(connection, question, *args, **kwargs)

    def _connect(self) -> apsw.Connection:
        connection = open_reader(self._path, self._options)
        self._connections.append(connection)
        return connection


def _ask(
    connection: apsw.Connection, question: Callable[Concatenate[Statements, P], R], *args: P.args, **kwargs: P.kwargs
) -> R:
    try:
        return question(Statements(connection), *args, **kwargs)
    except (apsw.Error, OSError) as error:
        raise translated(error) from error


def _data_version(db: Statements) -> int:
    version: int = db.value("PRAGMA data_version")
    return version

"""Counts what SQLite is asked to do: statements, transactions, and syncs of its files. The same on every machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw

__all__ = ["VFS_NAME", "Counts", "counted"]

VFS_NAME = "ropeway-counting"
"""Give it to what opens the files: connections on other VFSs are not counted."""


class Counts:
    """What was counted so far; from any thread."""

    def __init__(self) -> None:
        self.statements = self.transactions = self.syncs = 0
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Count from nothing again."""
        with self._lock:
            self.statements = self.transactions = self.syncs = 0

    def statement(self, sql: str) -> None:
        """A statement begins. Those of a trigger come as comments and belong to the one that fired it."""
        if sql.startswith("--"):
            return
        with self._lock:
            self.statements += 1
            self.transactions += sql.lstrip()[:6].upper() == "COMMIT"

    def sync(self) -> None:
        """A file is synced to the disk."""
        with self._lock:
            self.syncs += 1

    def __repr__(self) -> str:
        return f"<{self.statements} statements, {self.transactions} transactions, {self.syncs} syncs>"


@contextmanager
def counted() -> Iterator[Counts]:
    """Count what connections do that are opened within, on the VFS `VFS_NAME`, for as long as they live."""
    counts = Counts()
    base = apsw.vfs_names()[0]

    class CountingFile(apsw.VFSFile):
        def __init__(self, name: Any, flags: Any) -> None:
            super().__init__(base, name, flags)

        def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
            counts.sync()
            super().xSync(flags)

    class CountingVFS(apsw.VFS):
        def __init__(self) -> None:
            super().__init__(VFS_NAME, base)

        def xOpen(self, name: Any, flags: Any) -> CountingFile:  # noqa: N802 - SQLite's name
            return CountingFile(name, flags)

    def hook(connection: apsw.Connection) -> None:
        if connection.open_vfs == VFS_NAME:
            connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: counts.statement(event["sql"]), id=counts)

    vfs = CountingVFS()
    apsw.connection_hooks.append(hook)
    try:
        yield counts
    finally:
        apsw.connection_hooks.remove(hook)
        vfs.unregister()

"""Connections to the file: opened in one way, proved to be what the guarantees need, their errors translated once.

WAL with `synchronous=FULL` is read back and refused otherwise: that is what class `disk` means. A network filesystem is
refused too: WAL needs memory shared between all who have the file open.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import apsw
import msgspec

from ropeway.domain.errors import EngineUnavailable, PayloadTooLarge
from ropeway.engines.sqlite import schema

__all__ = ["SqliteOptions", "begin", "open_existing", "open_reader", "open_writer", "translated"]

_CACHE_KIB = 32 * 1024  # the writer's page cache: the hot ends of eight b-trees at a million waiting jobs
_READER_CACHE_KIB = 4 * 1024
_WAL_LIMIT_BYTES = 64 * 1024 * 1024  # what the WAL file is cut back to once a checkpoint has emptied it

# statfs(2) f_type of filesystems whose files live on another machine. Source: linux/magic.h, and each driver's own.
_NETWORK_FILESYSTEMS = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB2",
    0xFF534D42: "CIFS",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x00C36400: "Ceph",
    0x01021997: "9P",
    0x0BD00BD0: "Lustre",
}


_STORE_ERRORS = (
    OSError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.IOError,
    apsw.LockedError,
    apsw.NoMemError,
    apsw.NotADBError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
    apsw.ThreadingViolationError,
)
"""What can happen to a file. Any other error of SQLite's is a fault in this package, and is told as it is."""


class SqliteOptions(msgspec.Struct, frozen=True):
    """How an engine treats its file.

    Attributes:
        busy_timeout_s: how long to wait for another process's transaction before EngineUnavailable.
        failpoint: called with `pre_commit` and `post_commit` in every transaction, in the writer's thread; tests kill
            or raise there.
        vfs: the SQLite VFS to use; tests give one that fails.
    """

    busy_timeout_s: float = 5.0
    failpoint: Callable[[str], None] = lambda _point: None
    vfs: str | None = None


def open_writer(path: Path, options: SqliteOptions) -> apsw.Connection:
    """The connection that writes, on a file with the schema in it; both are made when missing (mode 0600).

    Raises EngineUnavailable: the file cannot be opened, or cannot keep the promises of class `disk`.
    """
    _refuse_network_filesystem(path)
    _create_private(path)
    connection = _open(path, options)
    try:
        _enter_wal(connection, options.busy_timeout_s)
        for pragma in (
            "synchronous = FULL",
            f"cache_size = -{_CACHE_KIB}",
            "temp_store = MEMORY",
            f"journal_size_limit = {_WAL_LIMIT_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        _prove_durable(connection)
        schema.install(connection)
    except BaseException:
        connection.close()
        raise
    connection.set_busy_timeout(0)  # `begin` waits instead
    return connection


def open_existing(path: Path, options: SqliteOptions) -> apsw.Connection:
    """As `open_writer`, for a file that must be there already."""
    if not path.exists():
        raise EngineUnavailable(f"there is no {path}: an engine makes it when it opens")
    return open_writer(path, options)


def open_reader(path: Path, options: SqliteOptions) -> apsw.Connection:
    """A connection that only reads."""
    connection = _open(path, options)
    connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
    connection.execute("PRAGMA query_only = ON")
    return connection


def begin(connection: apsw.Connection, busy_timeout_s: float) -> None:
    """Begin a write transaction, waiting for other processes to end theirs.

    SQLite's own wait backs off to 100 ms, which starves the unlucky: four processes writing all the time waited 18 ms
    at p99 and 180 ms at most; with short waits 3 and 17 ms, and 60 % more transactions. Raises apsw.BusyError.
    """
    waited, pause = 0.0, 0.0002
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except apsw.BusyError:
            if waited >= busy_timeout_s:
                raise
        time.sleep(pause)
        waited += pause
        pause = 0.0002 if waited < 0.02 else 0.001 if waited < 1 else 0.01


def translated(error: Exception) -> Exception:
    """What a caller is told of an error before the commit: for one of the store's, that nothing has happened."""
    if isinstance(error, EngineUnavailable):
        told: Exception = type(error)(error.detail)  # one for each caller: a traceback belongs to one
    elif isinstance(error, apsw.BusyError):
        told = EngineUnavailable("another process has held the database's write lock for too long")
    elif isinstance(error, apsw.FullError):
        told = EngineUnavailable("the disk is full")
    elif isinstance(error, apsw.TooBigError):
        told = PayloadTooLarge("SQLite stores at most 1 GB in one value")
    elif isinstance(error, _STORE_ERRORS):
        told = EngineUnavailable(f"the database cannot be used: {error}")
    else:
        return error
    told.__cause__ = error
    return told


def _open(path: Path, options: SqliteOptions) -> apsw.Connection:
    try:
        connection = apsw.Connection(str(path), vfs=options.vfs)
    except apsw.Error as error:
        raise EngineUnavailable(f"cannot open {path}: {error}") from error
    connection.set_busy_timeout(round(options.busy_timeout_s * 1000))
    # The query planner's stability guarantee: otherwise a statement is prepared again whenever it is bound to other
    # values, as SQLite built with STAT4 does. `get` of one job took 140 us with that, and 20 us without.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return connection


def _create_private(path: Path) -> None:
    """Make the file, for this user alone; SQLite gives its WAL the same mode.

    A file that is there is not opened here: closing it would drop the locks of this process's other connections.
    """
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise EngineUnavailable(f"cannot create {path}: {error.strerror}") from error


def _enter_wal(connection: apsw.Connection, busy_timeout_s: float) -> None:
    """Switch to WAL; two processes that make the file at once meet here, where SQLite itself does not wait."""
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _prove_durable(connection: apsw.Connection) -> None:
    mode, synchronous = connection.execute("PRAGMA journal_mode").get, connection.execute("PRAGMA synchronous").get
    if (mode, synchronous) != ("wal", 2):
        raise EngineUnavailable(
            f"{connection.filename} runs with journal_mode={mode}, synchronous={synchronous}, not with WAL and FULL: "
            "put it on a local disk"
        )


def _refuse_network_filesystem(path: Path) -> None:
    kind = _NETWORK_FILESYSTEMS.get(_filesystem(path.parent))
    if kind is not None:
        raise EngineUnavailable(
            f"{path} is on a network filesystem ({kind}), where SQLite loses data: use a local disk"
        )


def _filesystem(directory: Path) -> int:
    """The filesystem's magic number; 0 where this cannot be asked."""
    if sys.platform != "linux":
        return 0
    answer = ctypes.create_string_buffer(512)  # struct statfs is 120 bytes at most; f_type is its first long
    if ctypes.CDLL(None).statfs(os.fsencode(directory), answer) != 0:
        return 0
    return int(ctypes.c_long.from_buffer(answer).value) & 0xFFFFFFFF

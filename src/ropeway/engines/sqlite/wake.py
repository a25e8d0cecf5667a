"""Hints between the processes that share a file: each has a datagram socket in a directory beside it, nobody polls.

`<file>-wake/` holds one Unix socket a process; what a transaction touched is sent to every one of them, and its loop
fires its own board. Sending never blocks: a peer whose buffer is full has missed something, and is told so (`*`:
look at everything) as soon as it takes datagrams again. Hints are never truth, so a directory that somebody deletes
costs latency and no job.

A path too long for a socket's address is replaced by a directory in the temporary one, named by a hash of the real
path. Where there are no Unix sockets there is no directory: such processes look at the file itself, see `hearing`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["EVERYTHING", "Bell", "Peers", "wake_directory"]

EVERYTHING = "*"

_ADDRESS_BYTES = 100  # sun_path holds 104 bytes on macOS and the BSDs, 108 on Linux
_NAME_BYTES = 24
_CHUNK_BYTES = 32 * 1024  # of topics in one datagram; a socket's buffer holds 200 KiB by default
_DATAGRAMS = 64  # taken at once, so that busy peers do not keep the loop from everything else
_TICK_NS = 50_000_000  # directory times are only as fine as the kernel's tick: within it, a second look is needed


def wake_directory(path: Path) -> Path | None:
    """Where the processes on this file have their sockets, made when missing; None where that cannot be had."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    directory = path.with_name(f"{path.name}-wake")
    if len(os.fsencode(directory)) + 1 + _NAME_BYTES > _ADDRESS_BYTES:
        name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
        directory = Path(tempfile.gettempdir()) / f"ropeway-{os.getuid()}-{name}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError:
        return None
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return directory if is_ours else None


class Bell:
    """This process's own socket: readable when somebody has something to tell."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / f"{os.getpid()}-{secrets.token_hex(4)}.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    @classmethod
    def hang(cls, directory: Path) -> Bell | None:
        """A bell in this directory; None where it cannot be."""
        bell = cls(directory)
        try:
            bell._socket.bind(str(bell.path))
        except OSError:
            bell.close()
            return None
        return bell

    def fileno(self) -> int:
        return self._socket.fileno()

    def heard(self) -> set[str]:
        """The topics of the datagrams that have come; of very many, those of the first."""
        topics: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            for _ in range(_DATAGRAMS):
                topics.update(self._socket.recv(_CHUNK_BYTES * 2).decode(errors="replace").split("\n"))
        return topics

    def close(self) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)


class Peers:
    """The other processes' sockets. Used in one thread."""

    def __init__(self, directory: Path, own: Path | None = None) -> None:
        self._directory = str(directory)
        self._own = None if own is None else own.name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._names: list[str] = []
        self._changed_at_ns = 0
        self._listed_at_ns = 0
        self._missed: set[str] = set()

    @property
    def owed(self) -> bool:
        """Whether somebody missed a hint and is still to be told so."""
        return bool(self._missed)

    def tell(self, topics: Iterable[str]) -> None:
        """Send these topics to all, if there is anybody; those that cannot take them now are remembered."""
        self._look()
        if not self._names:
            return
        for chunk in _chunks(topics):
            for name in tuple(self._names):
                if name not in self._missed:
                    self._send(name, chunk)
        self.make_good()

    def make_good(self) -> None:
        """Tell those that missed something to look at everything."""
        for name in tuple(self._missed):
            self._missed.discard(name)
            self._send(name, EVERYTHING.encode())

    def close(self) -> None:
        self._socket.close()

    def _send(self, name: str, data: bytes) -> None:
        path = f"{self._directory}/{name}"
        try:
            self._socket.sendto(data, path)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                self._missed.add(name)
                return
            self._names.remove(name)
            if error.errno == errno.ECONNREFUSED:  # its process is gone and has left it behind
                with contextlib.suppress(OSError):
                    Path(path).unlink()

    def _look(self) -> None:
        """List the directory when it has changed, or may have changed since within the same tick."""
        try:
            changed_at_ns = os.stat(self._directory).st_mtime_ns  # noqa: PTH116 (at each transaction: a third of the cost)
            if changed_at_ns == self._changed_at_ns and self._listed_at_ns > changed_at_ns + _TICK_NS:
                return
            self._changed_at_ns, self._listed_at_ns = changed_at_ns, time.time_ns()
            names = [path.name for path in Path(self._directory).iterdir()]
        except OSError:
            names = []
        self._names = [name for name in names if name.endswith(".sock") and name != self._own]
        self._missed.intersection_update(self._names)


def _chunks(topics: Iterable[str]) -> Iterator[bytes]:
    gathered: list[bytes] = []
    size = 0
    for topic in topics:
        data = topic.encode()
        if gathered and size + len(data) > _CHUNK_BYTES:
            yield b"\n".join(gathered)
            gathered, size = [], 0
        gathered.append(data)
        size += len(data) + 1
    if gathered:
        yield b"\n".join(gathered)

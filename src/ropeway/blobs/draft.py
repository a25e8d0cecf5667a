"""A blob on its way into a folder: written under a name of its own, hashed as it comes, then put in its place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator

from ropeway.blobs.base import Blob

__all__ = ["Draft", "names_in", "open_folder", "sub_folder"]

TRIES = 8  # the folder of a content may be removed, empty, just before our blob would have been in it

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DRAFT = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Draft:
    """Blocking; one thread at a time, and `drop` from any: whoever gave up the write may not know how far it got."""

    def __init__(self, root: int, drafts: int, stamp: str) -> None:
        """Takes over `drafts`, an open directory; opens `root` anew."""
        self._root = os.dup(root)
        self._drafts = drafts
        self._stamp = stamp
        self._hash = hashlib.sha256()
        self._size = 0
        self._lock = threading.Lock()
        self._blob: Blob | None = None
        self._fd = -1
        try:
            self._fd = os.open(stamp, _DRAFT, 0o600, dir_fd=drafts)
        except BaseException:
            self._close()
            raise

    def add(self, block: bytes) -> None:
        with self._lock:
            if self._fd < 0:
                return  # given up meanwhile
            self._hash.update(block)
            self._size += len(block)
            left = memoryview(block)
            while left:
                left = left[os.write(self._fd, left) :]

    def publish(self, stamp: str) -> Blob:
        """Put it in its place, under this stamp: durable on return."""
        with self._lock:
            sha256 = self._hash.hexdigest()
            for attempt in range(TRIES):
                try:
                    self._place(sha256, stamp)
                    break
                except FileNotFoundError:
                    if attempt == TRIES - 1 or self._fd < 0:
                        raise
            self._blob = Blob(f"{sha256}-{stamp}", sha256, self._size)
            self._close()
            return self._blob

    def link_as(self, name: str) -> None:
        """Make it a file of the folder itself, whole from the first. Raises FileExistsError when there is one."""
        with self._lock:
            try:
                os.fsync(self._fd)
                os.link(self._stamp, name, src_dir_fd=self._drafts, dst_dir_fd=self._root, follow_symlinks=False)
                os.fsync(self._root)
            finally:
                os.unlink(self._stamp, dir_fd=self._drafts)
                self._close()

    def drop(self) -> Blob | None:
        """Nothing of the draft is left. The blob, if it had become one: that is its store's to delete."""
        with self._lock:
            if self._fd >= 0:
                with contextlib.suppress(OSError):
                    os.unlink(self._stamp, dir_fd=self._drafts)
                self._close()
            return self._blob

    def _place(self, sha256: str, stamp: str) -> None:
        with _opened(sub_folder(self._root, sha256[:2])) as shelf, _opened(sub_folder(shelf, sha256[2:])) as folder:
            if not self._share(folder, stamp):
                os.fsync(self._fd)
                os.rename(self._stamp, stamp, src_dir_fd=self._drafts, dst_dir_fd=folder)
            os.fsync(folder)
            os.fsync(shelf)
            os.fsync(self._root)

    def _share(self, folder: int, stamp: str) -> bool:
        """Become a link to the same content, where it is there; whether that was done."""
        for name in names_in(folder):
            with contextlib.suppress(OSError):  # gone meanwhile, or no more links to it, or none in this file system
                if os.stat(name, dir_fd=folder, follow_symlinks=False).st_size == self._size:
                    os.link(name, stamp, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                    os.unlink(self._stamp, dir_fd=self._drafts)
                    return True
        return False

    def _close(self) -> None:
        for fd in (self._fd, self._drafts, self._root):
            if fd >= 0:
                os.close(fd)
        self._fd = self._drafts = self._root = -1


@contextlib.contextmanager
def open_folder(name: str, within: int | None = None) -> Iterator[int]:
    """A directory, open within the block; never through a symlink. Raises OSError."""
    with _opened(os.open(name, _FOLDER, dir_fd=within)) as fd:
        yield fd


def names_in(folder: int) -> list[str]:
    """What is in an open directory."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def sub_folder(within: int, name: str) -> int:
    """A directory in another, made for its owner alone if it is not there; open, the caller's to close."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=within)
    return os.open(name, _FOLDER, dir_fd=within)


@contextlib.contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)

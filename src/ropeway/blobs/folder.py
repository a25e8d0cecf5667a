"""Blobs in a folder: `ab/<the rest of the sha256>/<when>-<random>`, drafts in `drafts/`, and who owns it in `owner`.

1. Every name is taken relative to an open directory, and no symlink is followed: what somebody plants in the folder
   leads nowhere.
2. Equal bytes are kept once: a blob whose content is there already becomes another hard link to it. The file system
   counts the links, so a blob may be deleted while the same content is being written: one of the two happens first.
   Where there are no hard links, each blob has bytes of its own.
3. A blob is there when its draft has been renamed: bytes synced first, the directories after.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import stat
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from ropeway.blobs.base import Blob, BlobStat, blocks
from ropeway.blobs.draft import Draft, names_in, open_folder, sub_folder
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.file import BlobMissing, FilesUnavailable, StorageFull
from ropeway.domain.ids import RandomBytes, system_random

__all__ = ["FolderStore"]

P = ParamSpec("P")
T = TypeVar("T")

READ_BYTES = 256 << 10  # a block on its way out: readers may be many, and slow
DRAFTS = "drafts"
OWNER = "owner"

_KEY = re.compile(r"([0-9a-f]{2})([0-9a-f]{62})-([0-9a-f]{12})-([0-9a-f]{16})")
_HEX = frozenset("0123456789abcdef")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FolderStore:
    """A folder, made at the first write, for its owner alone (0700). Several processes may use it at once."""

    def __init__(self, path: Path, *, clock: Clock | None = None, random: RandomBytes = system_random) -> None:
        self._root = path.absolute()
        self._clock = clock or SystemClock()
        self._random = random

    @property
    def url(self) -> str:
        return f"file:{self._root}"

    async def write(self, chunks: AsyncIterable[bytes]) -> Blob:
        draft = await _thread(self._begin)
        try:
            async for block in blocks(chunks):
                await _thread(draft.add, block)
            return await _thread(draft.publish, self._stamp())
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._give_up, draft))
            raise

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        fd = await _thread(self._open, key)
        try:
            while end is None or start < end:
                most = READ_BYTES if end is None else min(READ_BYTES, end - start)
                block = await _thread(os.pread, fd, most, start)
                if not block:
                    return
                start += len(block)
                yield block
        finally:
            os.close(fd)

    async def delete(self, key: str) -> None:
        await _thread(self._delete, key)

    async def scan(self) -> AsyncIterator[BlobStat]:
        for first in await _thread(self._shelves):
            for found in await _thread(self._on_shelf, first):
                yield found

    async def tidy(self, before_ms: int) -> int:
        return await _thread(self._tidy, before_ms)

    async def claim(self, owner: str) -> str:
        return await _thread(self._claim, owner)

    # -- on a thread

    def _begin(self) -> Draft:
        with self._made_root() as root:
            return Draft(root, sub_folder(root, DRAFTS), self._stamp())

    def _stamp(self) -> str:
        """What makes a key its own: the time, for the sweep to know how old it is, and random bits."""
        return f"{self._clock.now_ms():012x}-{self._random(8).hex()}"

    def _give_up(self, draft: Draft) -> None:
        blob = draft.drop()
        if blob is not None:  # its writer was cancelled while it was published, and nobody knows of it
            self._delete(blob.key)

    def _open(self, key: str) -> int:
        with self._content(key) as (folder, name):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise BlobMissing(f"blob {key} is no plain file")
        return fd

    def _delete(self, key: str) -> None:
        with contextlib.suppress(BlobMissing), self._content(key) as (folder, name):
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)
        first, rest = key[:2], key[2:64]
        with contextlib.suppress(OSError), self._root_fd() as root, open_folder(first, root) as shelf:
            os.rmdir(rest, dir_fd=shelf)  # only when it is empty: the system looks and removes in one step

    def _shelves(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError), self._root_fd() as root:
            return sorted(name for name in names_in(root) if len(name) == 2 and _HEX.issuperset(name))
        return []

    def _on_shelf(self, first: str) -> list[BlobStat]:
        found: list[BlobStat] = []
        with contextlib.suppress(FileNotFoundError), self._root_fd() as root, open_folder(first, root) as shelf:
            for rest in names_in(shelf):
                with contextlib.suppress(OSError), open_folder(rest, shelf) as folder:
                    found += _stats(first + rest, folder)
        return found

    def _tidy(self, before_ms: int) -> int:
        gone = 0
        with contextlib.suppress(FileNotFoundError), self._root_fd() as root, open_folder(DRAFTS, root) as drafts:
            for name in names_in(drafts):
                begun = name.partition("-")[0]
                if _HEX.issuperset(begun) and begun and int(begun, 16) < before_ms:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=drafts)
                        gone += 1
        return gone

    def _claim(self, owner: str) -> str:
        with self._made_root() as root:
            try:
                draft = Draft(root, sub_folder(root, DRAFTS), self._stamp())
                draft.add(owner.encode())
                draft.link_as(OWNER)
                return owner
            except FileExistsError:
                fd = os.open(OWNER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
                with os.fdopen(fd, "rb") as file:
                    return file.read(256).decode("utf-8", "replace")

    @contextlib.contextmanager
    def _content(self, key: str) -> Iterator[tuple[int, str]]:
        """The open directory of a blob's content, and its name there. Raises BlobMissing, also out of the block."""
        parts = _KEY.fullmatch(key)
        if parts is None:
            raise BlobMissing(f"{key[:100]!r} is no key of a blob in a folder")
        first, rest, at, random = parts.groups()
        try:
            with self._root_fd() as root, open_folder(first, root) as shelf, open_folder(rest, shelf) as folder:
                yield folder, f"{at}-{random}"
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BlobMissing(f"blob {key} is not in {self.url}") from error

    @contextlib.contextmanager
    def _made_root(self) -> Iterator[int]:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._root_fd() as root:
            yield root

    @contextlib.contextmanager
    def _root_fd(self) -> Iterator[int]:
        with open_folder(str(self._root)) as root:
            yield root


def _stats(sha256: str, folder: int) -> Iterator[BlobStat]:
    for name in names_in(folder):
        key = f"{sha256}-{name}"
        parts = _KEY.fullmatch(key)
        if parts is not None:
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield BlobStat(key, found.st_size, int(parts[3], 16))


async def _thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`call` on a thread, what the system says of files told in our words."""
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"no room for the file: {error.strerror}") from error
        raise FilesUnavailable(f"the folder of files does not work: {error}") from error

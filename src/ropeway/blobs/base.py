"""The port to where the bytes of files are: a folder, or an object store.

A blob is written once and never changed. Each write gets a key of its own, also when the bytes are known already, so
that deleting one blob can never take the bytes of another that is being written: nobody counts references. A store
may share the room of equal bytes below that, if it can do so safely (a folder has its file system count links).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import Protocol

import msgspec

__all__ = ["BLOCK_BYTES", "Blob", "BlobStat", "BlobStore", "blocks"]

BLOCK_BYTES = 256 << 10  # what of a file is in memory at a time, on its way in; smaller blocks cost more trips


class Blob(msgspec.Struct, frozen=True):
    """A blob that was written. `key` is the store's own text; `sha256` is 64 hex digits; `size` is in bytes."""

    key: str
    sha256: str
    size: int


class BlobStat(msgspec.Struct, frozen=True):
    """A blob that is there; `written_at_ms` is ms since the epoch on the clock of who wrote it."""

    key: str
    size: int
    written_at_ms: int


class BlobStore(Protocol):
    """Keeps bytes. Every method raises FilesUnavailable when the store does not answer: nothing is known then."""

    @property
    def url(self) -> str:
        """Where it is; without passwords."""
        ...

    async def write(self, chunks: AsyncIterable[bytes]) -> Blob:
        """Keep these bytes: durable on return, and all or nothing, whatever `chunks` raises and whoever dies.

        Raises StorageFull when there is no room.
        """
        ...

    def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `start`, which is inside the blob, up to, not with, `end`. Raises BlobMissing."""
        ...

    async def delete(self, key: str) -> None:
        """Let a blob go. One that is not there has gone already."""
        ...

    def scan(self) -> AsyncIterator[BlobStat]:
        """Every blob there is, in no order; one that is written or deleted meanwhile may be told or not."""
        ...

    async def tidy(self, before_ms: int) -> int:
        """Let go what writes left that were begun before this instant and never ended; how much there was."""
        ...

    async def claim(self, owner: str) -> str:
        """Whose store this is: the first who asked, for ever. Only the owner may delete what nobody names."""
        ...


async def blocks(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of about `BLOCK_BYTES`, however small or large they came."""
    waiting: list[bytes] = []
    size = 0
    async for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= BLOCK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if size:
        yield b"".join(waiting)

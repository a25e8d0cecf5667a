"""Files from afar: the JSON shapes of the routes, and the port between a client and where the files are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from ropeway.blobs import About
from ropeway.domain.file import FileRecord

__all__ = ["Content", "FileBody", "FileDesk", "FileGone", "FileList", "chunks_of", "file_body"]

Content = Path | str | bytes | Iterable[bytes] | AsyncIterable[bytes]

READ_BYTES = 1 << 20


class FileBody(msgspec.Struct, frozen=True):
    """A file as the world sees it. `created_at` and `expires_at` are seconds since the epoch, as OpenAI has them."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    content_type: str
    sha256: str
    object: Literal["file"] = "file"
    status: str = "processed"
    expires_at: int | None = None
    job_id: str | None = None


class FileList(msgspec.Struct, frozen=True):
    """A page of files, newest first. With `has_more`, ask again with `after` = `last_id`."""

    data: list[FileBody]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


class FileGone(msgspec.Struct, frozen=True):
    """A file that was deleted."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class FileDesk(Protocol):
    """What a client does with files. Raises FileNotFound, FilesNotKept, FilesUnavailable."""

    async def upload(self, chunks: AsyncIterable[bytes], about: About, key: str | None) -> FileBody:
        """Keep a file; under a key a repeat gives the same one.

        Raises PayloadTooLarge, QuotaExhausted, StorageFull, DigestMismatch, IdempotencyKeyReused.
        """
        ...

    def download(self, id_: str) -> AsyncIterator[bytes]:
        """Its bytes."""
        ...

    async def get(self, id_: str) -> FileBody: ...

    async def list(self, purpose: str | None, limit: int, after: str | None) -> FileList: ...

    async def delete(self, id_: str) -> None: ...


def file_body(file: FileRecord) -> FileBody:
    """The public form of a file."""
    return FileBody(
        id=file.id,
        bytes=file.size,
        created_at=file.created_at_ms // 1000,
        filename=file.filename,
        purpose=file.purpose,
        content_type=file.content_type,
        sha256=file.sha256,
        expires_at=None if file.expires_at_ms is None else file.expires_at_ms // 1000,
        job_id=file.job,
    )


async def chunks_of(content: Content) -> AsyncIterator[bytes]:
    """What is to be sent, in pieces: a path's bytes are read on a thread."""
    if isinstance(content, str | Path):
        opened = await asyncio.to_thread(Path(content).open, "rb")
        try:
            while block := await asyncio.to_thread(opened.read, READ_BYTES):
                yield block
        finally:
            opened.close()
    elif isinstance(content, bytes):
        yield content
    elif isinstance(content, AsyncIterable):
        async for chunk in content:
            yield chunk
    else:
        for chunk in content:
            yield chunk

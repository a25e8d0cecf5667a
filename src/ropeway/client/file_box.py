"""`client.files`, and what `client.upload` and `client.download` do: files as a program on this machine has them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypedDict

from ropeway.blobs import About
from ropeway.blobs.handle import File
from ropeway.client.encoding import checked_key
from ropeway.client.files import Content, FileBody, FileDesk, chunks_of
from ropeway.domain.file import DEFAULT_PURPOSE, DigestMismatch, FileRecord, clean_filename

__all__ = ["FileBox", "UploadOptions"]

PAGE = 100


class UploadOptions(TypedDict, total=False):
    """What `upload` may be told: see `FileBox.upload`."""

    filename: str | None
    content_type: str | None
    purpose: str
    expires_in: float | None
    idempotency_key: str | None


class FileBox:
    """The caller's files, on an engine or behind a gateway. A file is given by its id or as a `File`."""

    def __init__(self, desk: FileDesk) -> None:
        self._desk = desk

    async def upload(
        self,
        content: Content,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        purpose: str = DEFAULT_PURPOSE,
        expires_in: float | None = None,
        idempotency_key: str | None = None,
    ) -> File:
        """Keep a file: a path's, or these bytes. What comes back may stand in an input.

        Args:
            filename: what people call it; a path's own name, when nothing is said.
            content_type: what it is; by its name, when nothing is said.
            expires_in: seconds that it is kept; None: until it is deleted.
            idempotency_key: however often the same is uploaded under it within a day, one file.

        Raises PayloadTooLarge, QuotaExhausted, StorageFull, FilesNotKept, FilesUnavailable, EngineUnavailable, OSError,
        and IdempotencyKeyReused for something else under a key.
        """
        if filename is None:
            filename = Path(content).name if isinstance(content, str | Path) else ""
        about = About(filename, content_type, purpose, expires_in)
        key = None if idempotency_key is None else checked_key(idempotency_key)
        return _file(await self._desk.upload(chunks_of(content), about, key))

    async def download(self, file: File | str, path: Path | str) -> Path:
        """A file's bytes into a local file, whole or not at all; into a folder, under its own name. Where it is then.

        Raises FileNotFound, DigestMismatch when other bytes came than are known of, OSError.
        """
        body = await self._desk.get(_id(file))
        target = await asyncio.to_thread(_target, Path(path), clean_filename(body.filename))
        part = target.with_name(f"{target.name}.part")
        digest = hashlib.sha256()
        opened = await asyncio.to_thread(part.open, "wb")
        try:
            async for block in self._desk.download(body.id):
                digest.update(block)
                await asyncio.to_thread(opened.write, block)
            await asyncio.to_thread(opened.close)
            if digest.hexdigest() != body.sha256:
                raise DigestMismatch(f"the bytes of {body.id} that came are not those that are known of")
            await asyncio.to_thread(part.replace, target)
        finally:
            opened.close()
            with contextlib.suppress(FileNotFoundError):
                await asyncio.to_thread(part.unlink)
        return target

    async def read(self, file: File | str) -> bytes:
        """All of a file's bytes."""
        return b"".join([block async for block in self._desk.download(_id(file))])

    async def get(self, file: File | str) -> FileBody:
        """What is known of a file. Raises FileNotFound."""
        return await self._desk.get(_id(file))

    async def list(self, *, purpose: str | None = None, limit: int | None = None) -> AsyncIterator[FileBody]:
        """Uploads, newest first, at most `limit`; fetched a page at a time as they are asked for."""
        left, after = limit, None
        while left is None or left > 0:
            page = await self._desk.list(purpose, min(PAGE, left or PAGE), after)
            for body in page.data:
                yield body
            left = None if left is None else left - len(page.data)
            after = page.last_id
            if not page.has_more:
                return

    async def delete(self, file: File | str) -> None:
        """Delete a file, at once; a job that still needs it fails. Raises FileNotFound."""
        await self._desk.delete(_id(file))


def _id(file: File | str) -> str:
    return file if isinstance(file, str) else file.id


def _target(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def _file(body: FileBody) -> File:
    record = FileRecord(
        id=body.id,
        filename=body.filename,
        size=body.bytes,
        sha256=body.sha256,
        content_type=body.content_type,
        purpose=body.purpose,
        blob="",
        created_at_ms=body.created_at * 1000,
        expires_at_ms=None if body.expires_at is None else body.expires_at * 1000,
        job=body.job_id,
    )
    return File(body.id, record=record)

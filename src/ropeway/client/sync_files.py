"""`SyncClient.files`: the same, blocking."""

from __future__ import annotations

from pathlib import Path

from ropeway.blobs.handle import File
from ropeway.client.file_box import FileBox
from ropeway.client.files import Content, FileBody
from ropeway.client.thread import LoopThread
from ropeway.domain.file import DEFAULT_PURPOSE

__all__ = ["SyncFiles"]


class SyncFiles:
    """A `FileBox` whose methods block."""

    def __init__(self, thread: LoopThread, box: FileBox) -> None:
        self._thread = thread
        self._box = box

    def upload(
        self,
        content: Content,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        purpose: str = DEFAULT_PURPOSE,
        expires_in: float | None = None,
        idempotency_key: str | None = None,
    ) -> File:
        """As `FileBox.upload`."""
        return self._thread.run(
            self._box.upload(
                content,
                filename=filename,
                content_type=content_type,
                purpose=purpose,
                expires_in=expires_in,
                idempotency_key=idempotency_key,
            )
        )

    def download(self, file: File | str, path: Path | str) -> Path:
        """As `FileBox.download`."""
        return self._thread.run(self._box.download(file, path))

    def read(self, file: File | str) -> bytes:
        """As `FileBox.read`."""
        return self._thread.run(self._box.read(file))

    def get(self, file: File | str) -> FileBody:
        """As `FileBox.get`."""
        return self._thread.run(self._box.get(file))

    def list(self, *, purpose: str | None = None, limit: int | None = None) -> list[FileBody]:
        """As `FileBox.list`, all at once."""

        async def gathered() -> list[FileBody]:
            return [body async for body in self._box.list(purpose=purpose, limit=limit)]

        return self._thread.run(gathered())

    def delete(self, file: File | str) -> None:
        """As `FileBox.delete`."""
        self._thread.run(self._box.delete(file))

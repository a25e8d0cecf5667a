"""A file in hand: what a client gets of an upload, and what a task takes by annotating a parameter `File`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from ropeway.domain.file import FileRecord, reference, referred

__all__ = ["File", "Saved", "Source", "attached", "restored_file"]


class Source(Protocol):
    """Where the bytes of files in hand come from: the folder of a running attempt."""

    def known(self, id_: str) -> FileRecord | None:
        """What is known of the file, without asking anybody."""
        ...

    async def fetch(self, id_: str) -> Path:
        """A local copy, which goes when the attempt ends. In the worker's loop."""
        ...

    def fetch_blocking(self, id_: str) -> Path:
        """The same for code on a thread."""
        ...


class Saved:
    """What stands for a file in an output, before all of it is kept."""

    @property
    def file(self) -> File:
        raise NotImplementedError


_source: ContextVar[Source | None] = ContextVar("ropeway_files", default=None)


class File:
    """A file, by its id: in JSON `{"$file": "file_..."}`. Its bytes come when they are asked for.

    async def analyze(image: File) -> Report:
        pixels = load(await image.path())        # in a blocking task: image.wait_for_path()

    Made by `Client.upload`, by `ctx.artifact`, and by a worker for a parameter of this type, where alone its bytes can
    be had.
    """

    __slots__ = ("_record", "_source", "id")

    def __init__(self, id: str, source: Source | None = None, record: FileRecord | None = None) -> None:  # noqa: A002
        self.id = id
        self._source = source
        self._record = record or (None if source is None else source.known(id))

    @property
    def record(self) -> FileRecord:
        """Its name, size, content type and SHA-256. Raises RuntimeError where only the id is known."""
        if self._record is None:
            raise RuntimeError(f"only the id of {self.id} is known here")
        return self._record

    @property
    def name(self) -> str:
        return self.record.filename

    @property
    def size(self) -> int:
        return self.record.size

    async def path(self) -> Path:
        """A local copy: fetched once, yours to change, and gone when the attempt ends."""
        return await self._where.fetch(self.id)

    def wait_for_path(self) -> Path:
        """The same for a blocking task."""
        return self._where.fetch_blocking(self.id)

    async def read(self) -> bytes:
        """All of its bytes."""
        return await asyncio.to_thread((await self.path()).read_bytes)

    @property
    def _where(self) -> Source:
        if self._source is None:
            raise RuntimeError(f"the bytes of {self.id} are at hand only in the task that was given it")
        return self._source

    def as_json(self) -> dict[str, str]:
        """How it stands in an input or an output."""
        return reference(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<File {self.id}>"


@contextlib.contextmanager
def attached(source: Source | None) -> Iterator[None]:
    """Files that are read from JSON within take their bytes from here."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def restored_file(value: Any) -> File:
    """The file that stands in JSON. Raises TypeError for what is none."""
    named = referred(value)
    if named is None:
        raise TypeError('Expected a file as {"$file": "file_..."}')
    return File(named, _source.get())

"""The files of an input, brought to the attempt that takes them: as a local path, as a file in hand, or read in place.

| the parameter is | it gets |
|---|---|
| `Path` | a local copy, fetched before the task begins |
| `File` | a file in hand; a local copy when it is asked for |
| `str`, `bytes` | the file's text, its bytes |
| anything else | what the file's JSON says |

Copies are the attempt's own: in a folder that goes when its code has ended.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from ropeway.blobs import Files
from ropeway.blobs.inputs import missing_file
from ropeway.domain.errors import Fault, InputInvalid, RopewayError
from ropeway.domain.file import FileNotFound, FileRecord, FilesNotKept, referred_all
from ropeway.domain.lease import Assignment
from ropeway.runtime.faults import pointer
from ropeway.runtime.task import Task

__all__ = ["READ_LIMIT_BYTES", "Brought", "Intake"]

READ_LIMIT_BYTES = 64 << 20  # of a file that is read in place: what is larger is taken as a Path


class Intake:
    """Brings files. One for a worker; `files` is None where it has no store."""

    def __init__(self, files: Files | None) -> None:
        self._files = files

    def wants(self, assignment: Assignment) -> bool:
        """Whether a file may stand in the input."""
        return '"$file"' in assignment.input

    async def bring(
        self, task: Task[..., Any, Any], assignment: Assignment, stopped: Callable[[], bool]
    ) -> Brought | None:
        """The files that the task takes; None when its input has none. `stopped` tells that nobody needs them any more.

        Raises InputInvalid for a file that is not there or cannot be what the task takes, FilesUnavailable,
        FilesNotKept, StorageFull.
        """
        named = referred_all(assignment.input)
        if not named:
            return None
        if self._files is None:
            raise FilesNotKept("the input has files, and this worker has no store of files: set `blobs` for it too")
        brought = Brought(self._files, await self._known(assignment.tenant, named), stopped)
        try:
            for name, id_ in task.input.files_apart(assignment.input).items():
                brought.values[name] = await self._value(task, name, brought, id_)
        except BaseException:
            await asyncio.to_thread(brought.clear)
            raise
        return brought

    async def _known(self, tenant: str, named: dict[str, str]) -> dict[str, FileRecord]:
        assert self._files is not None
        try:
            found = await self._files.get_all(tenant, list(named), held=True)
        except FileNotFound as error:
            raise missing_file(named, error) from None
        return {file.id: file for file in found}

    async def _value(self, task: Task[..., Any, Any], name: str, brought: Brought, id_: str) -> Any:
        kind = task.input.type_of(name)
        if isinstance(kind, type) and issubclass(kind, PurePath):
            return kind(await brought.fetch(id_))
        assert self._files is not None
        file = brought.files[id_]
        try:
            content = await self._files.read_all(file, READ_LIMIT_BYTES)
            return task.input.read(name, content)
        except InputInvalid:
            raise
        except RopewayError as error:
            if error.retryable:
                raise
            raise InputInvalid(error.detail, (Fault(pointer([name]), error.detail),)) from error


class Brought:
    """The files of one attempt. `values` are the parameters that are filled already."""

    def __init__(self, files: Files, known: dict[str, FileRecord], stopped: Callable[[], bool]) -> None:
        self.values: dict[str, Any] = {}
        self.files = known
        self._files = files
        self._stopped = stopped
        self._loop = asyncio.get_running_loop()
        self._folder: Path | None = None
        self._copies: dict[str, Path] = {}
        self._fetching = asyncio.Lock()

    def known(self, id_: str) -> FileRecord | None:
        return self.files.get(id_)

    async def fetch(self, id_: str) -> Path:
        async with self._fetching:
            if id_ not in self._copies:
                self._copies[id_] = await self._copy(self.files[id_])
            return self._copies[id_]

    def fetch_blocking(self, id_: str) -> Path:
        return asyncio.run_coroutine_threadsafe(self.fetch(id_), self._loop).result()

    def clear(self) -> None:
        """Let the copies go. Blocking."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _copy(self, file: FileRecord) -> Path:
        if self._folder is None:
            self._folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="ropeway-"))
        # Named by us, but for its suffix, by which libraries tell formats apart.
        path = self._folder / f"{len(self._copies)}{_suffix(file.filename)}"
        opened = await asyncio.to_thread(path.open, "xb")
        try:
            async for block in self._files.read(file):
                if self._stopped():
                    raise asyncio.CancelledError("nobody needs the file any more")
                await asyncio.to_thread(opened.write, block)
        finally:
            await asyncio.to_thread(opened.close)
        return path


def _suffix(filename: str) -> str:
    suffix = PurePath(filename).suffix
    return suffix if suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= 16 else ""

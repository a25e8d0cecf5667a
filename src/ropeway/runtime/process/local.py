"""The files of a job's input as a child has them: copies that the worker has fetched before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec

from ropeway.domain.errors import Fault, InputInvalid
from ropeway.domain.file import FileRecord
from ropeway.runtime.faults import pointer
from ropeway.runtime.intake import READ_LIMIT_BYTES
from ropeway.runtime.task import Task

__all__ = ["LocalFiles"]


class LocalFiles:
    """A `Source` of files in hand. `told` is of each file where its copy is, and its record as JSON."""

    def __init__(self, told: Mapping[str, tuple[str, str]]) -> None:
        self._paths = {id_: Path(path) for id_, (path, _) in told.items()}
        self._records = {id_: msgspec.json.decode(record, type=FileRecord) for id_, (_, record) in told.items()}

    def known(self, id_: str) -> FileRecord | None:
        return self._records.get(id_)

    async def fetch(self, id_: str) -> Path:
        return self._paths[id_]

    def fetch_blocking(self, id_: str) -> Path:
        return self._paths[id_]

    def values(self, task: Task[..., Any, Any], raw: str) -> dict[str, Any]:
        """The parameters that files stand for. Raises InputInvalid for a file that cannot be what the task takes."""
        return {name: self._value(task, name, id_) for name, id_ in task.input.files_apart(raw).items()}

    def _value(self, task: Task[..., Any, Any], name: str, id_: str) -> Any:
        kind = task.input.type_of(name)
        path = self._paths[id_]
        if isinstance(kind, type) and issubclass(kind, PurePath):
            return kind(path)
        if (size := self._records[id_].size) > READ_LIMIT_BYTES:
            detail = f"{id_} has {size} bytes, and is read in place up to {READ_LIMIT_BYTES}: take it as a Path"
            raise InputInvalid(detail, (Fault(pointer([name]), detail),))
        return task.input.read(name, path.read_bytes())

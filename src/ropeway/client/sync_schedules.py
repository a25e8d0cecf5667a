"""`client.schedules` for code without an event loop."""

from __future__ import annotations

from typing import Any, Unpack

from ropeway.client.schedule_box import ScheduleBox, SetSettings
from ropeway.client.schedules import ScheduleBody
from ropeway.client.submitter import Call, TaskLike
from ropeway.client.thread import LoopThread

__all__ = ["SyncSchedules"]


class SyncSchedules:
    """A `ScheduleBox` whose methods block."""

    def __init__(self, thread: LoopThread, box: ScheduleBox) -> None:
        self._thread = thread
        self._box = box

    def set(
        self, name: str, what: Call[Any] | TaskLike[..., Any] | str, /, **settings: Unpack[SetSettings]
    ) -> ScheduleBody:
        """As `ScheduleBox.set`."""
        return self._thread.run(self._box.set(name, what, **settings))

    def get(self, name: str) -> ScheduleBody:
        """As `ScheduleBox.get`."""
        return self._thread.run(self._box.get(name))

    def find(self) -> list[ScheduleBody]:
        """As `ScheduleBox.find`."""
        return self._thread.run(self._box.find())

    def pause(self, name: str) -> ScheduleBody:
        """As `ScheduleBox.pause`."""
        return self._thread.run(self._box.pause(name))

    def resume(self, name: str) -> ScheduleBody:
        """As `ScheduleBox.resume`."""
        return self._thread.run(self._box.resume(name))

    def run(self, name: str) -> str:
        """As `ScheduleBox.run`; the job's id."""
        return self._thread.run(self._box.run(name)).id

    def remove(self, name: str) -> None:
        """As `ScheduleBox.remove`."""
        self._thread.run(self._box.remove(name))

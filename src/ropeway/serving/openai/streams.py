"""A job's log as a stream of somebody else's events: one cursor loop as every stream has, and a fold at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ropeway.domain.errors import JobNotFound
from ropeway.domain.event import TERMINAL_TYPES, Event
from ropeway.domain.job import Job
from ropeway.serving import replies
from ropeway.serving.outlet import Outlet
from ropeway.serving.parts import Parts
from ropeway.serving.replies import Headers
from ropeway.serving.streaming import Stream
from ropeway.serving.streams import WRITE_BYTES, LogReader
from ropeway.serving.watches import Watch

__all__ = ["Fold", "FoldStream"]


class Fold(Protocol):
    """Makes bytes of events, one after the other, from the beginning of the log.

    `needs_job`: the last event is told with the job as it ended.
    """

    needs_job: bool

    @property
    def ended(self) -> bool: ...

    def add(self, event: Event, job: Job | None = None) -> bytes: ...

    def interrupted(self) -> bytes:
        """What goes out when the gateway cannot go on; it may be nothing."""
        ...


class _Form:
    """The shell of the stream; what is in it, the fold makes."""

    content_type = replies.SSE
    heartbeat = b": hb\n"

    def __init__(self, fold: Fold) -> None:
        self._fold = fold

    def event(self, type_: str, body: bytes, event_id: str | None, *, first: bool) -> bytes:
        return body

    def control(self, type_: str, data: dict[str, Any], *, first: bool) -> bytes:
        return self._fold.interrupted()


class FoldStream(Stream):
    """The stream. `on_departure` is called when the client leaves before the end."""

    __slots__ = ("_fold", "_on_departure", "_reader", "_tenant")

    def __init__(
        self, parts: Parts, job: Job, fold: Fold, headers: Headers, on_departure: Callable[[], None] | None = None
    ) -> None:
        super().__init__(parts, f"job:{job.id}", ndjson=False, headers=headers)
        self._form = _Form(fold)
        self._fold = fold
        self._reader = LogReader(parts, job.tenant, job.id)
        self._tenant = job.tenant
        self._on_departure = on_departure

    async def begin(self, watch: Watch) -> bool:
        return True

    @property
    def is_behind(self) -> bool:
        return self._reader.is_behind

    def look(self) -> None:
        self._reader.hinted = False

    async def step(self, outlet: Outlet) -> bool:
        try:
            await self._write(outlet, await self._reader.read())
        except JobNotFound:  # deleted under its reader
            await outlet.write(self._fold.interrupted())
            return True
        return self._fold.ended or self._reader.ended

    async def close(self, watch: Watch, departed: bool) -> None:
        if departed and not self._fold.ended and self._on_departure is not None:
            self._on_departure()

    async def _write(self, outlet: Outlet, events: list[Event]) -> None:
        chunk = bytearray()
        for event in events:
            chunk += self._fold.add(event, await self._final_job(event))
            if len(chunk) >= WRITE_BYTES:
                await outlet.write(bytes(chunk))
                chunk.clear()
            if self._fold.ended:
                break
        if chunk:
            await outlet.write(bytes(chunk))

    async def _final_job(self, event: Event) -> Job | None:
        if not self._fold.needs_job or event.type not in TERMINAL_TYPES:
            return None
        return await self._parts.filled(await self._parts.job(self._tenant, self._reader.job_id))

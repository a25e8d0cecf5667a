"""One reader of one job's log: read by cursor, wait for more of the same log, read again.

Nothing is queued for a reader: a slow one takes what the log holds when it is ready for it. Readers of the same moment
are read for together (rounds.py), whichever their jobs; a loop shared by the readers of one job was left out, since a
job has one or two of them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from ropeway.client.wire import JobBody, job_body
from ropeway.domain.errors import JobNotFound
from ropeway.domain.event import START, TERMINAL_TYPES, Cursor, Event
from ropeway.engines.hints import tell_unhinted
from ropeway.serving.forms import envelope
from ropeway.serving.outlet import Outlet
from ropeway.serving.parts import Parts
from ropeway.serving.replies import Headers
from ropeway.serving.streaming import Stream
from ropeway.serving.watches import Watch

__all__ = ["LogReader", "LogStream", "next_limit"]

_log = logging.getLogger("ropeway.serving")

FIRST_EVENTS, PAGE_EVENTS = 8, 128  # of a reader's first page, of which no size is known, and of any
GROWTH = 4
PAGE_BYTES = 65_536  # about; a reader that takes nothing holds the page that it has read
WRITE_BYTES = 16_384  # small writes: what the server holds for a stuck reader is counted in these


class LogReader:
    """A cursor over a job's log that gives the wanted types only. `ended`: nothing comes after what was given.

    `hinted` is set to False by who reads on without a hint: events that are there all the same are told in the log.
    """

    __slots__ = ("_is_full", "_limit", "_parts", "_tenant", "_types", "cursor", "ended", "hinted", "job_id")

    def __init__(
        self, parts: Parts, tenant: str, job_id: str, after: Cursor = START, types: frozenset[str] | None = None
    ) -> None:
        self.job_id = job_id
        self.cursor = after
        self.ended = False
        self.hinted = True
        self._parts = parts
        self._tenant = tenant
        self._types = types
        self._is_full = False
        self._limit = FIRST_EVENTS

    async def read(self) -> list[Event]:
        """What is wanted of the log up to its present end, a page at the most. Raises JobNotFound."""
        while True:
            events = await self._page()
            if events or not self.is_behind:
                return events

    @property
    def is_behind(self) -> bool:
        """Whether there may be more to read without waiting."""
        return self._is_full and not self.ended

    async def final_job(self, base: str) -> JobBody | None:
        """The job as it ended; None when it was deleted since."""
        (job,) = await self._parts.engine.get(self._tenant, [self.job_id])
        if job is None:
            return None
        return job_body(job, durability=self._parts.engine.info.durability, base=base, with_input=False)

    async def _page(self) -> list[Event]:
        page = await self._parts.rounds.read(self._tenant, self.job_id, self.cursor, self._limit)
        if page is None:
            raise JobNotFound(f"no job {self.job_id}")
        if not self.hinted:
            self._tell_unhinted(page.events)
        self.ended = page.ended
        self._is_full = len(page.events) >= self._limit
        if page.events:
            self.cursor = page.events[-1].cursor
            self._limit = next_limit(self._limit, page.events)
        return [event for event in page.events if self._types is None or event.type in self._types]

    def _tell_unhinted(self, events: Sequence[Event]) -> None:
        self.hinted = True
        if events:
            late_ms = self._parts.clock.now_ms() - events[0].at_ms
            tell_unhinted(_log, f"job:{self.job_id}", f"event {events[0].id}", late_ms)


def next_limit(limit: int, events: Sequence[Event]) -> int:
    """How many events to ask for next, so that a page has about PAGE_BYTES if they are as large as these were."""
    size = sum(len(event.data) for event in events) // len(events)
    return max(1, min(PAGE_BYTES // (size + 1), limit * GROWTH, PAGE_EVENTS))


class LogStream(Stream):
    """A job's events. `on_departure` is awaited when the client leaves before the end."""

    __slots__ = ("_events", "_follow", "_on_departure", "_reader")

    def __init__(
        self,
        parts: Parts,
        reader: LogReader,
        *,
        ndjson: bool = False,
        follow: bool = True,
        headers: Headers = (),
        on_departure: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(parts, f"job:{reader.job_id}", ndjson=ndjson, headers=headers)
        self._reader = reader
        self._follow = follow
        self._on_departure = on_departure
        self._events: list[Event] | None = None  # read to see whether to begin, and not yet written

    async def begin(self, watch: Watch) -> bool:
        self._events = await self._reader.read()
        return bool(self._events) or not self._reader.ended

    @property
    def is_behind(self) -> bool:
        return self._reader.is_behind

    def look(self) -> None:
        self._reader.hinted = False

    async def step(self, outlet: Outlet) -> bool:
        try:
            events = await self._reader.read() if self._events is None else self._events
            self._events = None
            await self._write(outlet, events)
        except JobNotFound:
            return True  # deleted under its reader
        return self._reader.ended or not (self._follow or self._reader.is_behind)

    async def close(self, watch: Watch, departed: bool) -> None:
        if departed and self._on_departure is not None:
            await self._on_departure()

    async def _write(self, outlet: Outlet, events: list[Event]) -> None:
        chunk = bytearray()
        for event in events:
            job = await self._reader.final_job(self._base) if event.type in TERMINAL_TYPES else None
            chunk += outlet.form.event(event.type, envelope(event, job), event.id, first=outlet.is_first)
            outlet.is_first = False
            if len(chunk) >= WRITE_BYTES:
                await outlet.write(bytes(chunk))
                chunk.clear()
        if chunk:
            await outlet.write(bytes(chunk))

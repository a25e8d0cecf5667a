"""What anyone may look at, within a tenant."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import date

import msgspec

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.event import Cursor
from ropeway.domain.job import Job, JobQuery
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import LimitState
from ropeway.domain.log import EventPage, LogQuery, page
from ropeway.domain.queue import QueueStats
from ropeway.domain.usage import UsageRow
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import JobPage
from ropeway.engines.hints import Listener
from ropeway.engines.memory.base import Role

__all__ = ["ReadingRole"]

_CURSOR_LIMIT = 18  # digits: below 2**63 in every store


class ReadingRole(Role):
    """Jobs, their logs and counts as they stand."""

    async def get(self, tenant: str, job_ids: Sequence[str]) -> list[Job | None]:
        self._now()
        return [self._store.owned(tenant, job_id) for job_id in job_ids]

    async def find(self, query: JobQuery) -> JobPage:
        self._now()
        before = None if query.before is None else _number(query.before)
        found = [job for job in reversed(self._store.jobs.values()) if _fits(job, query)]
        if before is not None:
            found = [job for job in found if self._store.number(job.id) < before]
        jobs = tuple(found[: query.limit])
        more = len(found) > query.limit
        return JobPage(jobs, str(self._store.number(jobs[-1].id)) if more else None)

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        self._now()
        job = self._store.owned(tenant, job_id)
        if job is None:
            return None
        log = self._store.events.get(job_id, [])
        first = bisect_right(log, after, key=lambda event: event.cursor)  # a scan would make a long stream quadratic
        return page(job, log[first : first + limit], after, limit)

    async def read_many(self, queries: Sequence[LogQuery]) -> list[EventPage | None]:
        return [await self.read(*query) for query in queries]

    async def position(self, tenant: str, job_id: str, limit: int = 10_000) -> int | None:
        self._now()
        job = self._store.owned(tenant, job_id)
        if job is None or job.state is not State.queued:
            return None
        number = self._store.number(job_id)
        if job.parked is not None:
            ahead = self._store.limits.ahead_of(job.parked, self._store.place(job))
            return ahead if ahead <= limit else None
        return self._store.line(job.queue).ahead_of(job.rank, number, self._store.is_queued, limit)

    async def stats(self, tenant: str | None = None) -> list[QueueStats]:
        self._now()
        oldest: dict[str, int] = {}
        for job in self._store.jobs.values():
            if job.state is State.queued and tenant in (None, job.tenant):
                oldest[job.queue] = min(oldest.get(job.queue, job.created_at_ms), job.created_at_ms)
        return [line.stats(tenant, oldest.get(name)) for name, line in sorted(self._store.lines.items())]

    async def limits(self) -> list[LimitState]:
        self._now()
        return list(self._store.limits.states())

    async def tasks(self) -> list[TaskCard]:
        self._now()
        return sorted(self._store.catalogue.values(), key=lambda task: task.name)

    async def workers(self) -> list[WorkerCard]:
        self._now()
        return [
            msgspec.structs.replace(session.card, expires_at_ms=session.expires_at_ms, running=len(session.held))
            for session in self._store.sessions.values()
        ]

    async def usage(self, tenant: str, since: date, until: date) -> list[UsageRow]:
        self._now()
        rows = (row for row in self._store.usage.values() if row.tenant == tenant and since <= row.day <= until)
        return sorted(rows, key=lambda row: (row.day, row.task))

    def listen(self, *topics: str) -> Listener:
        return self._store.board.listen(*topics)

    async def tell(self, *topics: str) -> None:
        self._store.board.fire(topics)


def _number(cursor: str) -> int:
    """The number in a page's cursor. Raises InvalidRequest for one that no page gave."""
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _CURSOR_LIMIT):
        raise InvalidRequest(f"{cursor[:_CURSOR_LIMIT]!r} is not a page cursor", param="cursor")
    return int(cursor)


def _fits(job: Job, query: JobQuery) -> bool:
    return (
        job.tenant == query.tenant
        and (not query.states or job.state in query.states)
        and query.queue in (None, job.queue)
        and query.task in (None, job.task)
        and (query.tag is None or query.tag in job.options.tags)
    )

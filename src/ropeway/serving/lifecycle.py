"""The route of the feed: one reader of it, by server-sent events or lines of JSON."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from starlette.requests import Request

from ropeway.client.wire import EventBody, job_body, timestamp
from ropeway.domain.event import SNAPSHOT, START, Cursor
from ropeway.domain.job import Job
from ropeway.serving.callers import tenant_of
from ropeway.serving.feed import Change, Feed, Feeds
from ropeway.serving.outlet import Outlet
from ropeway.serving.parts import Parts
from ropeway.serving.questions import after_of, name_of, tag_of, types_of
from ropeway.serving.requests import header_map, wants_ndjson
from ropeway.serving.streaming import Stream
from ropeway.serving.watches import Watch

__all__ = ["FeedRoutes", "FeedStream"]

_MISSED = "changes were missed: load what you show anew"

_encode = msgspec.json.Encoder().encode


class FeedRoutes:
    """One method for each route."""

    def __init__(self, parts: Parts, feeds: Feeds) -> None:
        self._parts = parts
        self._feeds = feeds

    async def follow_jobs(self, request: Request) -> FeedStream:
        headers, query = header_map(request.scope), request.query_params
        types, queue, tag = types_of(query), name_of(query, "queue"), tag_of(query)

        def wanted(change: Change) -> bool:
            return (types is None or change.type in types) and _fits(change.job, queue, tag)

        return FeedStream(
            self._parts,
            self._feeds.of(tenant_of(request)),
            after_of(headers, query),
            wanted,
            ndjson=wants_ndjson(headers),
        )


class FeedStream(Stream):
    """The changes of jobs as they are seen, from the cursor given or from now on."""

    __slots__ = ("_cursor", "_feed", "_wanted")

    def __init__(
        self,
        parts: Parts,
        feed: Feed,
        after: Cursor,
        wanted: Callable[[Change], bool],
        *,
        ndjson: bool,
    ) -> None:
        super().__init__(parts, "feed", ndjson=ndjson)
        self._feed = feed
        self._cursor = after
        self._wanted = wanted

    async def begin(self, watch: Watch) -> bool:
        await self._feed.join(watch)
        if self._cursor == START:
            self._cursor = self._feed.end
        return True

    async def step(self, outlet: Outlet) -> bool:
        if not self._feed.holds(self._cursor):
            self._cursor = self._feed.end
            await self._tell(outlet, SNAPSHOT, _encode({"type": SNAPSHOT, "data": {"reason": _MISSED}}))
        for change in self._feed.after(self._cursor):
            self._cursor = change.cursor
            if self._wanted(change):
                await self._tell(outlet, change.type, _body(change, self._base))
        return False

    async def close(self, watch: Watch, departed: bool) -> None:
        self._feed.leave(watch)

    async def _tell(self, outlet: Outlet, type_: str, body: bytes) -> None:
        await outlet.write(outlet.form.event(type_, body, str(self._cursor), first=outlet.is_first))
        outlet.is_first = False


def _fits(job: Job, queue: str | None, tag: str | None) -> bool:
    return queue in (None, job.queue) and (tag is None or tag in job.options.tags)


def _body(change: Change, base: str) -> bytes:
    job = change.job
    shown = job_body(job, base=base, with_input=False, with_output=False)
    cursor, at = change.cursor, timestamp(change.at_ms)
    return _encode(EventBody(str(cursor), cursor.seq, change.type, job.id, job.attempt, at, shown))

"""`GET /v1/events`: what becomes of a tenant's jobs, live, for dashboards.

The engine keeps a log for each job and none across them, so this is made by looking: on a hint, a few times a second at
the most, at the newest jobs, at those running, and at those seen alive before. A job that changes twice between two
looks is told once, as it stands then; one deep in a long backlog is told of when it is seen to run, or not at all. It
serves a screen; who must miss nothing of a job reads that job's own events.

One look serves all readers. Its entries go into a ring; each reader has a cursor into it and nothing of its own. A
reader that fell out of the ring, or comes from another process, gets a `snapshot` that tells it to load its lists anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import NamedTuple

from ropeway.domain.clock import Clock
from ropeway.domain.errors import RopewayError
from ropeway.domain.event import CANCELLED, FAILED, QUEUED, RETRYING, STARTED, SUCCEEDED, Cursor
from ropeway.domain.job import Job, JobQuery
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Reading
from ropeway.serving.watches import Watch

__all__ = ["Change", "Feed", "Feeds"]

LOOK_INTERVAL_S = 0.25
RECHECK_S = 15.0
RING_ENTRIES = 2_000
NEWEST = 200
RUNNING = 500
FOLLOWED = 2_000  # jobs seen alive that are looked at again until they end

_TYPES = {
    State.queued: QUEUED,
    State.running: STARTED,
    State.succeeded: SUCCEEDED,
    State.failed: FAILED,
    State.cancelled: CANCELLED,
}


class Change(NamedTuple):
    """What was seen: its place in this feed, what happened, when it was seen, and the job after it."""

    cursor: Cursor
    type: str
    at_ms: int
    job: Job


class Feed:
    """The recent changes of one tenant's jobs, looked up while anybody reads them."""

    def __init__(self, engine: Reading, tenant: str, clock: Clock) -> None:
        self._engine = engine
        self._tenant = tenant
        self._clock = clock
        self._epoch = clock.now_ms()
        self._next = 1
        self._ring: deque[Change] = deque(maxlen=RING_ENTRIES)
        self._seen: dict[str, tuple[State, int]] = {}
        self._seen_until_ms: int | None = None  # the engine's time of the newest change seen; None before any look
        self._readers: set[Watch] = set()
        self._looker: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()

    @property
    def end(self) -> Cursor:
        """The newest change's place: a reader that starts here gets what comes."""
        return Cursor(self._epoch, self._next - 1)

    @property
    def is_read(self) -> bool:
        """Whether anybody follows it."""
        return bool(self._readers)

    def holds(self, after: Cursor) -> bool:
        """Whether every change after this place is still here."""
        return after.epoch == self._epoch and self._next - 1 - len(self._ring) <= after.seq < self._next

    def after(self, cursor: Cursor) -> list[Change]:
        """The changes after this place, which the feed must hold."""
        missing = self._next - 1 - cursor.seq
        return list(self._ring)[-missing:] if missing > 0 else []

    async def join(self, watch: Watch) -> None:
        """Look while this reader is there, and wake it when there is news. Raises EngineUnavailable."""
        self._readers.add(watch)
        if self._looker is None or self._looker.done():
            self._begin_anew()
            self._looker = asyncio.get_running_loop().create_task(self._keep_looking())
        async with self._looking:
            if self._seen_until_ms is None:
                await self.look()

    def leave(self, watch: Watch) -> None:
        self._readers.discard(watch)

    def close(self) -> None:
        """Look no more."""
        if self._looker is not None:
            self._looker.cancel()

    async def look(self) -> None:
        """See what changed since the last look. The first look sees nothing new: it learns what there is."""
        is_first = self._seen_until_ms is None
        jobs = await self._candidates()
        changed = [] if is_first else [job for job in jobs if self._is_news(job)]
        self._remember(jobs)
        for job in changed:
            self._ring.append(Change(Cursor(self._epoch, self._next), _type(job), self._clock.now_ms(), job))
            self._next += 1
        if changed:
            for watch in self._readers:
                watch.wake()

    async def _candidates(self) -> list[Job]:
        """The jobs that may have changed, in the order of their last changes."""
        newest = await self._engine.find(JobQuery(self._tenant, limit=NEWEST))
        running = await self._engine.find(JobQuery(self._tenant, (State.running,), limit=RUNNING))
        jobs = {job.id: job for job in (*newest.jobs, *running.jobs)}
        others = [id_ for id_, (state, _) in self._seen.items() if not state.terminal and id_ not in jobs]
        found = await self._engine.get(self._tenant, others) if others else []
        jobs.update((job.id, job) for job in found if job is not None)
        as_they_came = list(jobs.values())[::-1]  # found newest first; those of one ms are told in their own order
        return sorted(as_they_came, key=_changed_at_ms)

    def _is_news(self, job: Job) -> bool:
        before = self._seen.get(job.id)
        if before is not None:
            return before != (job.state, job.attempt)
        return _changed_at_ms(job) >= (self._seen_until_ms or 0)  # else it slid into view as others were deleted

    def _remember(self, jobs: list[Job]) -> None:
        ended = {job.id: (job.state, job.attempt) for job in jobs if job.state.terminal}
        alive = {job.id: (job.state, job.attempt) for job in jobs[-FOLLOWED:] if not job.state.terminal}
        self._seen = ended | alive
        self._seen_until_ms = max([self._seen_until_ms or 0, *map(_changed_at_ms, jobs)])

    def _begin_anew(self) -> None:
        """Nobody looked for a while: no place before this one is held any more."""
        self._ring.clear()
        self._next += 1
        self._seen_until_ms = None

    async def _keep_looking(self) -> None:
        with self._engine.listen("lifecycle") as hints:
            while self._readers:
                with contextlib.suppress(RopewayError):  # an engine that does not answer is asked again
                    async with self._looking:
                        await self.look()
                await asyncio.sleep(LOOK_INTERVAL_S)
                await hints.wait(RECHECK_S)


class Feeds:
    """The feeds of all tenants who look at theirs; one that nobody reads is let go for the next."""

    def __init__(self, engine: Reading, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._feeds: dict[str, Feed] = {}

    def of(self, tenant: str) -> Feed:
        """This tenant's feed."""
        feed = self._feeds.get(tenant)
        if feed is None:
            self._feeds = {name: other for name, other in self._feeds.items() if other.is_read}
            feed = self._feeds[tenant] = Feed(self._engine, tenant, self._clock)
        return feed

    def close(self) -> None:
        """Look no more."""
        for feed in self._feeds.values():
            feed.close()


def _changed_at_ms(job: Job) -> int:
    return max(job.created_at_ms, job.started_at_ms or 0, job.finished_at_ms or 0)


def _type(job: Job) -> str:
    if job.state is State.scheduled:
        return RETRYING if job.runs else QUEUED
    return _TYPES[job.state]

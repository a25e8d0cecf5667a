"""An engine that fails when told to: before a call, which then did not happen, or after it, when nobody can know.

engine = FaultyEngine(inner, scripted(commit=[None, "after"]))    # the second commit happens, its reply is lost
engine = FaultyEngine(inner, seeded(7, before=0.05, after=0.05))  # one call in ten fails, the same ones every time
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import date
from typing import Literal, TypeVar

from ropeway.domain.bucket import Allowance, Spend
from ropeway.domain.errors import (
    EngineUnavailable,
    JobLive,
    JobNotFound,
    JobNotRetryable,
    LeaseLost,
    OutcomeUnknown,
)
from ropeway.domain.event import Cursor
from ropeway.domain.job import Job, JobQuery, NewJob, Receipt
from ropeway.domain.lease import Append, Appended, Assignment, Commit, LeaseRequest, Renewal
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import LimitPolicy, LimitSignal, LimitState
from ropeway.domain.log import EventPage, LogQuery
from ropeway.domain.queue import QueueChange, QueuePolicy, QueueStats
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey
from ropeway.domain.usage import UsageRow
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import Engine, EngineInfo, JobPage, Promotion, Refusal, Renewer
from ropeway.engines.hints import Listener

__all__ = ["WRITES", "FaultyEngine", "Moment", "Plan", "scripted", "seeded"]

Moment = Literal["before", "after"]
"""When a call fails: `before` it reached the store, or `after`, its reply lost."""

Plan = Callable[[str, int], Moment | None]
"""Says when call number `nth` (from 0) of a method fails; None: it does not."""

WRITES = frozenset(
    {"submit", "cancel", "wake", "retry", "purge", "announce", "lease", "renew", "append", "commit", "close"}
    | {"put", "drop", "spend"}
)

T = TypeVar("T")


def scripted(**calls: Sequence[Moment | None]) -> Plan:
    """For each method named, what becomes of its calls one after the other; those beyond the list succeed."""

    def plan(method: str, nth: int) -> Moment | None:
        script = calls.get(method, ())
        return script[nth] if nth < len(script) else None

    return plan


def seeded(seed: int, *, before: float = 0.0, after: float = 0.0, methods: Collection[str] = WRITES) -> Plan:
    """Each call of these methods fails with these probabilities, the same ones for the same seed.

    What becomes of a call depends on its method and number alone, not on the order in which methods are called.
    """

    def plan(method: str, nth: int) -> Moment | None:
        if method not in methods:
            return None
        draw = random.Random(f"{seed}/{method}/{nth}").random()  # noqa: S311 (to be repeatable)
        if draw < before:
            return "before"
        return "after" if draw < before + after else None

    return plan


class FaultyEngine:
    """Any engine, behind a line that breaks by plan. `calls` counts them, by method."""

    def __init__(self, engine: Engine, plan: Plan) -> None:
        self.engine = engine
        self.plan = plan
        self.calls: Counter[str] = Counter()

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    async def open(self) -> None:
        await self._through("open", self.engine.open)

    async def shut(self) -> None:
        await self._through("shut", self.engine.shut)

    async def submit(self, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
        return await self._through("submit", lambda: self.engine.submit(jobs))

    async def cancel(
        self,
        tenant: str,
        job_ids: Sequence[str],
        reason: str | None,
        word: str | None = None,
        for_all: bool = False,
    ) -> list[Job | JobNotFound]:
        return await self._through("cancel", lambda: self.engine.cancel(tenant, job_ids, reason, word, for_all))

    async def wake(self, tenant: str, job_ids: Sequence[str]) -> list[Job | JobNotFound]:
        return await self._through("wake", lambda: self.engine.wake(tenant, job_ids))

    async def retry(
        self, tenant: str, jobs: Sequence[tuple[str, str]]
    ) -> list[Receipt | JobNotFound | JobNotRetryable | Refusal]:
        return await self._through("retry", lambda: self.engine.retry(tenant, jobs))

    async def purge(self, tenant: str, job_ids: Sequence[str]) -> list[JobNotFound | JobLive | None]:
        return await self._through("purge", lambda: self.engine.purge(tenant, job_ids))

    async def set_queue(self, changes: Sequence[QueueChange]) -> list[QueuePolicy]:
        return await self._through("set_queue", lambda: self.engine.set_queue(changes))

    async def set_limits(self, changes: Mapping[str, LimitPolicy | None]) -> list[LimitState]:
        return await self._through("set_limits", lambda: self.engine.set_limits(changes))

    async def publish(self, tasks: Sequence[TaskCard]) -> None:
        await self._through("publish", lambda: self.engine.publish(tasks))

    async def announce(self, worker: WorkerCard) -> None:
        await self._through("announce", lambda: self.engine.announce(worker))

    async def lease(self, request: LeaseRequest) -> list[Assignment]:
        return await self._through("lease", lambda: self.engine.lease(request))

    async def renew(self, session: str, ttl_ms: int) -> Renewal:
        return await self._through("renew", lambda: self.engine.renew(session, ttl_ms))

    async def signal(self, signals: Sequence[LimitSignal]) -> None:
        return await self._through("signal", lambda: self.engine.signal(signals))

    async def append(self, batch: Sequence[Append]) -> list[Appended | LeaseLost]:
        return await self._through("append", lambda: self.engine.append(batch))

    async def commit(self, batch: Sequence[Commit]) -> list[State | LeaseLost]:
        return await self._through("commit", lambda: self.engine.commit(batch))

    async def close(self, session: str) -> None:
        await self._through("close", lambda: self.engine.close(session))

    def renewer(self) -> Renewer:
        return _FaultyRenewer(self, self.engine.renewer())

    async def get(self, tenant: str, job_ids: Sequence[str]) -> list[Job | None]:
        return await self._through("get", lambda: self.engine.get(tenant, job_ids))

    async def find(self, query: JobQuery) -> JobPage:
        return await self._through("find", lambda: self.engine.find(query))

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        return await self._through("read", lambda: self.engine.read(tenant, job_id, after, limit))

    async def read_many(self, queries: Sequence[LogQuery]) -> list[EventPage | None]:
        return await self._through("read_many", lambda: self.engine.read_many(queries))

    async def position(self, tenant: str, job_id: str, limit: int = 10_000) -> int | None:
        return await self._through("position", lambda: self.engine.position(tenant, job_id, limit))

    async def stats(self, tenant: str | None = None) -> list[QueueStats]:
        return await self._through("stats", lambda: self.engine.stats(tenant))

    async def limits(self) -> list[LimitState]:
        return await self._through("limits", self.engine.limits)

    async def tasks(self) -> list[TaskCard]:
        return await self._through("tasks", self.engine.tasks)

    async def workers(self) -> list[WorkerCard]:
        return await self._through("workers", self.engine.workers)

    async def usage(self, tenant: str, since: date, until: date) -> list[UsageRow]:
        return await self._through("usage", lambda: self.engine.usage(tenant, since, until))

    def listen(self, *topics: str) -> Listener:
        return self.engine.listen(*topics)

    async def tell(self, *topics: str) -> None:
        await self.engine.tell(*topics)

    async def promote(self, limit: int) -> Promotion:
        return await self._through("promote", lambda: self.engine.promote(limit))

    async def rescue(self, limit: int) -> int:
        return await self._through("rescue", lambda: self.engine.rescue(limit))

    async def prune(self, limit: int) -> int:
        return await self._through("prune", lambda: self.engine.prune(limit))

    async def elect(self, duty: str, holder: str, ttl_ms: int) -> bool:
        return await self._through("elect", lambda: self.engine.elect(duty, holder, ttl_ms))

    async def put(self, puts: Sequence[Put]) -> list[Record | RecordConflict]:
        return await self._through("put", lambda: self.engine.put(puts))

    async def fetch(self, keys: Sequence[RecordKey]) -> list[Record | None]:
        return await self._through("fetch", lambda: self.engine.fetch(keys))

    async def scan(self, kind: str, tenant: str, after: str = "", limit: int = 100) -> list[Record]:
        return await self._through("scan", lambda: self.engine.scan(kind, tenant, after, limit))

    async def drop(self, keys: Sequence[RecordKey]) -> list[bool]:
        return await self._through("drop", lambda: self.engine.drop(keys))

    async def spend(self, wishes: Sequence[Spend]) -> list[Allowance]:
        return await self._through("spend", lambda: self.engine.spend(wishes))

    def next_fault(self, method: str) -> Moment | None:
        """What becomes of the call that is about to be made; it is counted."""
        nth = self.calls[method]
        self.calls[method] += 1
        return self.plan(method, nth)

    async def _through(self, method: str, call: Callable[[], Awaitable[T]]) -> T:
        moment = self.next_fault(method)
        if moment == "before":
            raise EngineUnavailable(f"{method}: the line broke before the call")
        result = await call()
        if moment == "after":
            raise OutcomeUnknown(f"{method}: the line broke after the call")
        return result


class _FaultyRenewer:
    """A renewer on the same line: its calls count with the engine's own `renew` and `close`."""

    def __init__(self, faulty: FaultyEngine, renewer: Renewer) -> None:
        self._faulty = faulty
        self._renewer = renewer

    def renew(self, session: str, ttl_ms: int) -> Renewal:
        return self._through("renew", lambda: self._renewer.renew(session, ttl_ms))

    def close_session(self, session: str) -> None:
        self._through("close", lambda: self._renewer.close_session(session))

    def close(self) -> None:
        self._renewer.close()

    def _through(self, method: str, call: Callable[[], T]) -> T:
        moment = self._faulty.next_fault(method)
        if moment == "before":
            raise EngineUnavailable(f"{method}: the line broke before the call")
        result = call()
        if moment == "after":
            raise OutcomeUnknown(f"{method}: the line broke after the call")
        return result

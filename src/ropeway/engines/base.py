"""The engine protocol: where jobs live. Narrow, batched, in five roles (`Records` stands in `engines.records`).

Every method is a batch and every write one atomic step that writes the row *and* its event. What can go wrong for one
item of a batch comes back in that item's place as an error *value*; what goes wrong for the whole batch is raised, as
`EngineUnavailable` (nothing happened) or `OutcomeUnknown` (it may have). The engine's clock is the clock of record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Literal, Protocol

import msgspec

from ropeway.domain.errors import (
    EngineUnavailable,
    IdempotencyKeyReused,
    JobLive,
    JobNotFound,
    JobNotRetryable,
    LeaseLost,
    QueueFull,
    TooManyQueued,
)
from ropeway.domain.event import Cursor
from ropeway.domain.job import Job, JobQuery, NewJob, Receipt
from ropeway.domain.lease import Append, Appended, Assignment, Commit, LeaseRequest, Renewal
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import LimitPolicy, LimitSignal, LimitState
from ropeway.domain.log import EventPage, LogQuery
from ropeway.domain.queue import QueueChange, QueuePolicy, QueueStats
from ropeway.domain.usage import UsageRow
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.hints import Listener
from ropeway.engines.records import Records

__all__ = [
    "Engine",
    "EngineBroken",
    "EngineInfo",
    "Execution",
    "JobPage",
    "Promotion",
    "Reading",
    "Refusal",
    "Renewer",
    "Submission",
    "Upkeep",
]

Refusal = QueueFull | TooManyQueued | IdempotencyKeyReused


class EngineBroken(EngineUnavailable):
    """The engine failed, and takes nothing until it is opened anew: whoever runs its process must end it.

    To those outside the process it is an EngineUnavailable as any other.
    """


class EngineInfo(msgspec.Struct, frozen=True):
    """What an engine is. `durability` is `disk`, `window` or `memory`: what a 202 means (docs/guarantees.md).

    `url` shows no password. `warnings` is what an operator should know of it.
    """

    kind: str
    url: str
    durability: Literal["disk", "window", "memory"]
    version: str
    warnings: tuple[str, ...] = ()


class JobPage(msgspec.Struct, frozen=True):
    """Jobs, newest first; `next_cursor` is None on the last page."""

    jobs: tuple[Job, ...]
    next_cursor: str | None


class Promotion(msgspec.Struct, frozen=True):
    """How many jobs were moved, and when the next one is due (None: nothing waits for a time)."""

    moved: int
    next_at_ms: int | None


class Submission(Protocol):
    """What a client does to jobs. Another tenant's job is as one that does not exist."""

    async def submit(self, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
        """Store each job with its rank and its idempotency claim; durable, to the engine's class, on return.

        One with a cache key may be answered with another job of that key instead (see `domain.cache`).
        No jobs at all ask whether any could be stored: EngineUnavailable tells why not.
        """
        ...

    async def cancel(
        self,
        tenant: str,
        job_ids: Sequence[str],
        reason: str | None,
        word: str | None = None,
        for_all: bool = False,
    ) -> list[Job | JobNotFound]:
        """Cancel: a waiting job is cancelled on return, a running one is asked to stop, a terminal one unchanged.

        Of a job that several submits share, one of them leaves and the others keep it, unless this is `for_all`. A
        cancel that is sent again under its `word` (any text without spaces) counts once.
        """
        ...

    async def wake(self, tenant: str, job_ids: Sequence[str]) -> list[Job | JobNotFound]:
        """Let jobs go on: a scheduled one is queued now, a running one is as soon as it snoozes, others are unchanged.

        Of an attempt that ends in another way, or is lost, nothing is remembered.
        """
        ...

    async def retry(
        self, tenant: str, jobs: Sequence[tuple[str, str]]
    ) -> list[Receipt | JobNotFound | JobNotRetryable | Refusal]:
        """For each (terminal job's id, new id): a new job with the same input and options, `retry_of` the old."""
        ...

    async def purge(self, tenant: str, job_ids: Sequence[str]) -> list[JobNotFound | JobLive | None]:
        """Delete terminal jobs with their events. Their idempotency keys stay claimed until that claim expires."""
        ...

    async def set_queue(self, changes: Sequence[QueueChange]) -> list[QueuePolicy]:
        """Change queue policies, making queues that are not there yet."""
        ...

    async def set_limits(self, changes: Mapping[str, LimitPolicy | None]) -> list[LimitState]:
        """Set what counts for limits' keys instead of what jobs bring; None: what jobs bring counts again.

        Parked jobs that now fit are called back. Raises InvalidRequest for numbers that cannot be, changing nothing.
        """
        ...


class Execution(Protocol):
    """What a worker does."""

    async def publish(self, tasks: Sequence[TaskCard]) -> None:
        """Add to the catalogue of tasks, or replace entries of the same name."""
        ...

    async def announce(self, worker: WorkerCard) -> None:
        """Open the worker's session, or bring what is known of it up to date; also renews it."""
        ...

    async def lease(self, request: LeaseRequest) -> list[Assignment]:
        """The best-ranked queued jobs, now running under this session. An expired or unknown session gets none.

        A job met past its queue deadline fails with `queue_timeout` instead. One that does not fit its limits is parked
        under the key of the first that it does not fit, and takes nothing of any.
        """
        ...

    async def signal(self, signals: Sequence[LimitSignal]) -> None:
        """Lower what is believed of limits to what a provider told, or pause them."""
        ...

    async def renew(self, session: str, ttl_ms: int) -> Renewal:
        """Extend a session to `ttl_ms` from the engine's now."""
        ...

    async def append(self, batch: Sequence[Append]) -> list[Appended | LeaseLost]:
        """Write events of running attempts: each under its lease, each a compare-and-set on the next n."""
        ...

    async def commit(self, batch: Sequence[Commit]) -> list[State | LeaseLost]:
        """End attempts; the state that each job came to. One asked to cancel becomes `cancelled`, whatever it came to.

        A `retry` beyond the attempts allowed becomes `failed`. The holder's repeat of its own commit is answered again.
        """
        ...

    async def close(self, session: str) -> None:
        """End a session. What it still holds is rescued at once."""
        ...

    def renewer(self) -> Renewer:
        """A way to renew from outside the event loop."""
        ...


class Renewer(Protocol):
    """Renews sessions from another thread or process, with its own connection; blocking."""

    def renew(self, session: str, ttl_ms: int) -> Renewal:
        """As `Execution.renew`."""
        ...

    def close_session(self, session: str) -> None:
        """As `Execution.close`: for a supervisor that saw its worker die."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class Reading(Protocol):
    """What anyone may look at, within a tenant."""

    @property
    def info(self) -> EngineInfo: ...

    async def get(self, tenant: str, job_ids: Sequence[str]) -> list[Job | None]:
        """The jobs as they stand; None for what this tenant does not have."""
        ...

    async def find(self, query: JobQuery) -> JobPage: ...

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        """Events of a job strictly after a cursor; None for a job that this tenant does not have."""
        ...

    async def read_many(self, queries: Sequence[LogQuery]) -> list[EventPage | None]:
        """As `read`, of many logs for many readers in one call; each page is of one moment, not all of the same."""
        ...

    async def position(self, tenant: str, job_id: str, limit: int = 10_000) -> int | None:
        """How many queued jobs go before this one (0: the next); None when it is not queued, or beyond `limit`.

        For a parked one, those that are parked before it under the same key.
        """
        ...

    async def stats(self, tenant: str | None = None) -> list[QueueStats]:
        """Counts of every queue, of one tenant's jobs or of all."""
        ...

    async def limits(self) -> list[LimitState]:
        """The limits of which anything is to be told: jobs run or are parked, something is taken, set or paused."""
        ...

    async def tasks(self) -> list[TaskCard]: ...

    async def workers(self) -> list[WorkerCard]: ...

    async def usage(self, tenant: str, since: date, until: date) -> list[UsageRow]:
        """What a tenant's attempts used on these days (UTC), both included, by day and task.

        Counted is what their commits told, in the same step; a repeat of a commit is not counted again. Rows are kept
        for 400 days.
        """
        ...

    def listen(self, *topics: str) -> Listener:
        """Hints on topics (see `engines.hints`): never truth; a lost hint costs latency, not a job.

        Listen, look, wait: what happens after a look through this engine ends the wait.
        """
        ...

    async def tell(self, *topics: str) -> None:
        """Hint to all who listen on these topics, in any process. Never fails: a hint may be lost."""
        ...


class Upkeep(Protocol):
    """What one worker at a time does for all."""

    async def promote(self, limit: int) -> Promotion:
        """Queue the scheduled jobs whose time has come; fail the queued ones past their queue deadline.

        Parked jobs that fit their limit by now are called back into line.
        """
        ...

    async def rescue(self, limit: int) -> int:
        """End the attempts of sessions past their deadline: queued again, or failed when the crashes are spent."""
        ...

    async def prune(self, limit: int) -> int:
        """Delete terminal jobs past their retention, and idempotency claims past theirs."""
        ...

    async def elect(self, duty: str, holder: str, ttl_ms: int) -> bool:
        """Whether `holder` has this duty until `ttl_ms` from now: taken when free or expired, renewed when its own."""
        ...


class Engine(Submission, Execution, Reading, Upkeep, Records, Protocol):
    """All roles, and a life: open before use, closed at the end."""

    async def open(self) -> None: ...

    async def shut(self) -> None:
        """Finish what was accepted and let go of everything. A shut engine raises EngineUnavailable."""
        ...

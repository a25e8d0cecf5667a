"""The port between a client and where the jobs live: an engine in this process, or a gateway over HTTP.

A transport knows no task objects: it carries requests and gives back what happened, in the same words on both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import NamedTuple, Protocol

import msgspec

from ropeway.client.deliveries import DeliveryBody
from ropeway.client.files import FileDesk
from ropeway.client.fleet import PolicyRequest, QueueBody, TaskBody
from ropeway.client.keys import KeyAdmin
from ropeway.client.limits import LimitAdmin
from ropeway.client.schedules import ScheduleDesk
from ropeway.client.usage import UsageList
from ropeway.client.wire import EventBody, JobBody, JobList, JobRequest
from ropeway.domain.errors import JobError, RopewayError
from ropeway.domain.lifecycle import State
from ropeway.domain.worker import TaskCard

__all__ = ["Accepted", "Ending", "JobFilter", "Order", "Transport"]


class Order(NamedTuple):
    """One submit. `card` is known when it was made from a task object, whose `bind` has checked the input.

    `id` and `parent` are known of a job that another job submits.
    """

    request: JobRequest
    card: TaskCard | None = None
    idempotency_key: str | None = None
    id: str | None = None
    parent: str | None = None


class Accepted(NamedTuple):
    """A job is stored under this id. `replayed`: an idempotency key gave an earlier job back; `cached`: the content."""

    id: str
    replayed: bool = False
    cached: bool = False


class Ending(msgspec.Struct, frozen=True):
    """What a result is made from: the last state of a job. `output` is JSON text, untouched."""

    id: str
    state: State
    output: msgspec.Raw = msgspec.Raw(b"null")
    error: JobError | None = None
    cancel_reason: str | None = None
    cached: bool = False


class JobFilter(msgspec.Struct, frozen=True):
    """Which jobs to list; what is None or empty does not narrow."""

    states: tuple[State, ...] = ()
    queue: str | None = None
    task: str | None = None
    tag: str | None = None


class Transport(Protocol):
    """Jobs from afar. A job that is not there, or another tenant's, raises JobNotFound."""

    @property
    def limits(self) -> LimitAdmin:
        """The limits that all workers share, for who may set them."""
        ...

    @property
    def keys(self) -> KeyAdmin:
        """The keys, for who may change them."""
        ...

    @property
    def files(self) -> FileDesk:
        """The files of whom this is."""
        ...

    @property
    def schedules(self) -> ScheduleDesk:
        """The schedules of whom this is."""
        ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def submit(self, orders: Sequence[Order]) -> list[Accepted | RopewayError]:
        """Store the jobs; a refusal stands in its order's place. Raises only what holds for all of them."""
        ...

    async def get(self, job_id: str) -> JobBody: ...

    async def ending(self, job_id: str, timeout_s: float | None) -> Ending:
        """The job's last state, once it has ended. Raises WaitTimeout after `timeout_s` seconds."""
        ...

    def events(self, job_id: str, after: str | None) -> AsyncIterator[EventBody]:
        """The log strictly after an event id, live, through reconnects, up to and with the terminal event."""
        ...

    async def send(self, job_id: str, data: bytes, key: str | None) -> JobBody:
        """Send JSON up to the running task; the job as it stands. Raises as `JobHandle.send` does."""
        ...

    async def cancel(self, job_id: str, reason: str | None, for_all: bool = False) -> JobBody:
        """Ask for the end. A job that others share goes on for them, unless this is `for_all`."""
        ...

    async def wake(self, job_id: str) -> JobBody:
        """Let a waiting job go on now. One that waits for nothing stays as it is."""
        ...

    async def retry(self, job_id: str) -> Accepted: ...

    async def delete(self, job_id: str, force: bool) -> None:
        """Purge a job. Raises JobLive when it runs or waits, unless `force`, which cancels it first and waits.

        A job that others share stays theirs: JobLive.
        """
        ...

    async def find(self, wanted: JobFilter, limit: int, cursor: str | None) -> JobList: ...

    async def tasks(self) -> list[TaskBody]: ...

    async def queues(self) -> list[QueueBody]: ...

    async def set_queue(self, queue: str, policy: PolicyRequest) -> QueueBody:
        """Change a queue's policy, making one that is not there yet."""
        ...

    async def deliveries(self, job_id: str) -> list[DeliveryBody]:
        """How the job's end was told to its webhook, also when the job itself has gone."""
        ...

    async def redeliver(self, job_id: str, delivery_id: str) -> DeliveryBody:
        """Deliver again. Raises JobNotRetryable while that delivery goes on."""
        ...

    async def usage(self, since: date | None, until: date | None) -> UsageList:
        """What the tenant's tasks used on these days."""
        ...

    async def pause(self, queue: str, paused: bool) -> QueueBody: ...

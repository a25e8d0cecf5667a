"""The client: submit jobs, follow them, fetch their results; the same face on an engine and on a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

from ropeway.blobs import BlobStore
from ropeway.blobs.handle import File
from ropeway.client.deliveries import DeliveryBody
from ropeway.client.file_box import FileBox, UploadOptions
from ropeway.client.files import Content
from ropeway.client.fleet import QueueBody, TaskBody, policy_of
from ropeway.client.handle import JobHandle, value_of
from ropeway.client.keys import KeyAdmin
from ropeway.client.limits import LimitAdmin
from ropeway.client.local import LocalTransport
from ropeway.client.schedule_box import ScheduleBox
from ropeway.client.submitter import Submitter
from ropeway.client.transport import JobFilter, Transport
from ropeway.client.usage import UsageList
from ropeway.client.wire import EventBody, JobBody
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.domain.job import DEFAULT_TENANT, check_name
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine

if TYPE_CHECKING:
    import httpx

__all__ = ["Client"]

FIND_PAGE = 100


class Client(Submitter):
    """Jobs on an engine or behind a gateway. An async context manager; within it, use it from any task of its loop.

        async with Client("sqlite:ropeway.db") as client:      # or "http://127.0.0.1:8000"
            job = await client.submit(chat, messages, model="m")
            async for event in job.events(): ...
            answer = await job.result(timeout=30)

    An engine given as an object stays its giver's: it must be open, and the client leaves it open.
    """

    def __init__(
        self,
        target: str | Engine,
        *,
        key: str | None = None,
        tenant: str = DEFAULT_TENANT,
        clock: Clock | None = None,
        random: RandomBytes = system_random,
        wire: httpx.AsyncBaseTransport | None = None,
        blobs: BlobStore | str | None = None,
    ) -> None:
        """`target` is an engine URL, an Engine, or a gateway's http(s) URL, with the path it is mounted at if any.

        `key` is what a gateway asks for, `rw_…`; an engine asks for none.
        `tenant` names the owner of what is submitted to an engine; a gateway knows by itself whom it talks to.
        `blobs` is an engine's store of files, or its URL; None: beside the file of a SQLite engine.
        `wire` carries HTTP requests instead of the network, for tests and for proxies.
        Raises InvalidRequest for a URL that leads nowhere.
        """
        clock = clock or SystemClock()
        if isinstance(target, str) and target.startswith(("http://", "https://")):
            from ropeway.client.http import HttpTransport  # httpx takes longer to import than all of Ropeway

            super().__init__(HttpTransport(target, random=random, key=key, wire=wire))
        else:
            super().__init__(_local(target, check_name("tenant", tenant), clock, random, blobs))

    async def open(self) -> None:
        """Connect. `async with` does it."""
        await self._transport.open()

    async def close(self) -> None:
        """Let go of connections, and of the engine if the client opened it. Jobs go on."""
        await self._transport.close()

    async def __aenter__(self) -> Client:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def limits(self) -> LimitAdmin:
        """Limits that all workers share: seen and set. On a gateway this needs a key with the scope `admin`."""
        return self._transport.limits

    @property
    def keys(self) -> KeyAdmin:
        """API keys: made, listed, revoked. On a gateway this needs a key with the scope `admin`."""
        return self._transport.keys

    @property
    def schedules(self) -> ScheduleBox:
        """Schedules: jobs that are submitted again and again."""
        return ScheduleBox(self._transport)

    @property
    def files(self) -> FileBox:
        """Files: kept, listed, read, deleted."""
        return FileBox(self._transport.files)

    async def upload(self, content: Content, **about: Unpack[UploadOptions]) -> File:
        """Keep a file, to stand in an input: `await client.submit(analyze, image=await client.upload("tile.tif"))`.

        As `client.files.upload`.
        """
        return await self.files.upload(content, **about)

    async def download(self, file: File | str, path: Path | str) -> Path:
        """A file's bytes into a local file. As `client.files.download`."""
        return await self.files.download(file, path)

    # -- one job

    def job(self, job_id: str) -> JobHandle[Any]:
        """A handle on a job submitted before, here or elsewhere. Looks nothing up."""
        return JobHandle(self._transport, job_id)

    async def get(self, job_id: str) -> JobBody:
        """The job as it stands. Raises JobNotFound."""
        return await self._transport.get(job_id)

    async def result(self, job_id: str, timeout: float | None = None) -> Any:
        """What the job returned, as plain JSON values; raises as `JobHandle.result` does."""
        return value_of(await self._transport.ending(job_id, timeout))

    def events(self, job_id: str, after: str | None = None) -> AsyncIterator[EventBody]:
        """The job's log strictly after an event id, live and through reconnects, up to the terminal event."""
        return self._transport.events(job_id, after)

    async def send(self, job_id: str, data: Any, *, key: str | None = None) -> JobBody:
        """Send data up to the task, which reads it by `ctx.input()`. As `JobHandle.send`."""
        return await self.job(job_id).send(data, key=key)

    async def wake(self, job_id: str) -> JobBody:
        """Have a waiting job go on now. As `JobHandle.wake`."""
        return await self._transport.wake(job_id)

    async def cancel(self, job_id: str, reason: str | None = None, *, for_all: bool = False) -> JobBody:
        """Ask for the end: a waiting job is cancelled on return, a running one is asked to stop.

        A job that others share goes on for them: this takes one of them away. `for_all` ends it for everybody.
        """
        return await self._transport.cancel(job_id, reason, for_all)

    async def retry(self, job_id: str) -> JobHandle[Any]:
        """A new job with the input and options of one that has ended. Raises JobNotRetryable while it is live."""
        accepted = await self._transport.retry(job_id)
        return JobHandle(self._transport, accepted.id, replayed=accepted.replayed)

    async def delete(self, job_id: str, *, force: bool = False) -> None:
        """Forget a job that has ended. Raises JobLive otherwise, unless `force`: that cancels it and waits for its end.

        A running job ends when its worker obeys or is given up, so `force` can wait.
        """
        await self._transport.delete(job_id, force)

    async def deliveries(self, job_id: str) -> list[DeliveryBody]:
        """How the job's end was told to its webhook: each delivery with its attempts. Raises JobNotFound."""
        return await self._transport.deliveries(job_id)

    async def redeliver(self, job_id: str, delivery_id: str) -> DeliveryBody:
        """Deliver once more what an ended delivery held. Raises JobNotFound; JobNotRetryable while it goes on."""
        return await self._transport.redeliver(job_id, delivery_id)

    # -- many

    async def find(
        self,
        *,
        state: State | str | Iterable[State | str] = (),
        queue: str | None = None,
        task: str | None = None,
        tag: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[JobBody]:
        """Jobs, newest first, at most `limit`; fetched a page at a time as they are asked for.

        Without their input and output: `get` has those.
        """
        wanted = JobFilter(_states(state), queue, task, tag)
        left, cursor = limit, None
        while left is None or left > 0:
            page = await self._transport.find(wanted, min(FIND_PAGE, left or FIND_PAGE), cursor)
            for body in page.data:
                yield body
            left = None if left is None else left - len(page.data)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def tasks(self) -> list[TaskBody]:
        """What workers have announced."""
        return await self._transport.tasks()

    async def queues(self) -> list[QueueBody]:
        """Every queue, with its counts and policy."""
        return await self._transport.queues()

    async def usage(self, since: date | None = None, until: date | None = None) -> UsageList:
        """What tasks said that they used, by day (UTC) and task: of the last 30 days, unless told which."""
        return await self._transport.usage(since, until)

    async def set_queue(self, queue: str, **changes: Any) -> QueueBody:
        """Change a queue's policy, making the queue if it is not there: what is not named stays, None takes away.

            await client.set_queue("chat", max_running=50, weights={"acme": 3.0})

        Args: `max_depth`, `max_depth_per_tenant`: jobs that may wait. `max_running`: that run at once, on all workers.
        `weights`: each tenant's share against the others', 1 unless named. `paused`. Raises InvalidRequest.
        """
        return await self._transport.set_queue(check_name("queue", queue), policy_of(changes))

    async def pause(self, queue: str) -> QueueBody:
        """Have a queue accept jobs and run none; those that run go on."""
        return await self._transport.pause(check_name("queue", queue), True)

    async def resume(self, queue: str) -> QueueBody:
        """Have a paused queue run again."""
        return await self._transport.pause(check_name("queue", queue), False)


def _local(
    target: str | Engine, tenant: str, clock: Clock, random: RandomBytes, blobs: BlobStore | str | None
) -> Transport:
    if not isinstance(target, str):
        return LocalTransport(target, owns=False, tenant=tenant, clock=clock, random=random, blobs=blobs)
    if target.partition(":")[0] == "memory":
        raise InvalidRequest("a memory engine lives in one process: make one, open it, and give the Engine itself")
    from ropeway.engines.connect import connect  # a client of a gateway needs no engine

    engine = connect(target, clock=clock, random=random)
    return LocalTransport(engine, owns=True, tenant=tenant, clock=clock, random=random, blobs=blobs)


def _states(state: State | str | Iterable[State | str]) -> tuple[State, ...]:
    try:
        return (State(state),) if isinstance(state, str) else tuple(State(one) for one in state)
    except ValueError as error:
        raise InvalidRequest(f"{error}; states are {', '.join(State)}", param="state") from error

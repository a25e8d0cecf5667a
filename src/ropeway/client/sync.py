"""The client for code without an event loop: the same face, blocking; safe to share between threads."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, overload

from ropeway.blobs import BlobStore
from ropeway.blobs.handle import File
from ropeway.client.client import Client
from ropeway.client.deliveries import DeliveryBody
from ropeway.client.file_box import UploadOptions
from ropeway.client.files import Content
from ropeway.client.fleet import QueueBody, TaskBody
from ropeway.client.handle import JobHandle
from ropeway.client.limits import SyncLimits
from ropeway.client.submitter import BATCH_JOBS, Call, OptionChanges, Submitter, TaskLike, accepted, call
from ropeway.client.sync_files import SyncFiles
from ropeway.client.sync_keys import SyncKeys
from ropeway.client.sync_schedules import SyncSchedules
from ropeway.client.thread import LoopThread
from ropeway.client.usage import UsageList
from ropeway.client.wire import EventBody, JobBody
from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine

__all__ = ["SyncClient", "SyncJobHandle", "SyncSubmitter"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class SyncJobHandle(Generic[R]):
    """A `JobHandle` whose methods block."""

    __slots__ = ("_handle", "_thread")

    def __init__(self, thread: LoopThread, handle: JobHandle[R]) -> None:
        self._thread = thread
        self._handle = handle

    @property
    def id(self) -> str:
        return self._handle.id

    @property
    def replayed(self) -> bool:
        return self._handle.replayed

    @property
    def cached(self) -> bool:
        return self._handle.cached

    @property
    def output(self) -> R:
        """As `JobHandle.output`."""
        return self._handle.output

    def get(self) -> JobBody:
        """As `JobHandle.get`."""
        return self._thread.run(self._handle.get())

    def result(self, timeout: float | None = None) -> R:
        """As `JobHandle.result`."""
        return self._thread.run(self._handle.result(timeout))

    def events(self, after: str | None = None) -> Iterator[EventBody]:
        """As `JobHandle.events`."""
        return _pulled(self._thread, self._handle.events(after))

    def send(self, data: Any, *, key: str | None = None) -> JobBody:
        """As `JobHandle.send`."""
        return self._thread.run(self._handle.send(data, key=key))

    def cancel(self, reason: str | None = None, *, for_all: bool = False) -> JobBody:
        """As `JobHandle.cancel`."""
        return self._thread.run(self._handle.cancel(reason, for_all=for_all))

    def wake(self) -> JobBody:
        """As `JobHandle.wake`."""
        return self._thread.run(self._handle.wake())

    def retry(self) -> SyncJobHandle[R]:
        """As `JobHandle.retry`."""
        return SyncJobHandle(self._thread, self._thread.run(self._handle.retry()))

    def __repr__(self) -> str:
        return f"SyncJobHandle({self.id!r})"


class SyncSubmitter:
    """A `Submitter` whose methods block. Arguments are bound on the caller's own thread."""

    def __init__(self, thread: LoopThread, submitter: Submitter) -> None:
        self._thread = thread
        self._submitter = submitter

    def with_options(self, **changes: Unpack[OptionChanges]) -> SyncSubmitter:
        """As `Submitter.with_options`."""
        return SyncSubmitter(self._thread, self._submitter.with_options(**changes))

    @overload
    def submit(self, task: TaskLike[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SyncJobHandle[R]: ...
    @overload
    def submit(self, task: str, /, **fields: Any) -> SyncJobHandle[Any]: ...
    def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> SyncJobHandle[Any]:
        """As `Submitter.submit`."""
        one: Call[Any] = call(task, *args, **kwargs)
        return self._one(self._submitter.submit_call(one))

    def submit_json(self, task: str, input_json: str | bytes) -> SyncJobHandle[Any]:
        """As `Submitter.submit_json`."""
        return self._one(self._submitter.submit_json(task, input_json))

    def submit_many(self, calls: Iterable[Call[R]], *, patience: float = 60.0) -> Iterator[SyncJobHandle[R]]:
        """As `Submitter.submit_many`; `calls` is read on the caller's own thread."""
        source = iter(calls)
        while batch := list(itertools.islice(source, BATCH_JOBS)):
            for answer in self._thread.run(self._submitter.submit_batch(batch, patience)):
                yield SyncJobHandle(self._thread, accepted(answer))

    def _one(self, submit: Coroutine[Any, Any, JobHandle[R]]) -> SyncJobHandle[R]:
        return SyncJobHandle(self._thread, self._thread.run(submit))


class SyncClient(SyncSubmitter):
    """A `Client` for blocking code. A context manager; connects at first use.

        with SyncClient("sqlite:ropeway.db") as client:
            answer = client.submit(chat, messages, model="m").result(timeout=30)

    It runs on one background thread with a loop of its own, so an Engine given as an object must be used by no other
    loop: the client opens and shuts it there. Make one client per process, after any fork.
    """

    def __init__(
        self,
        target: str | Engine,
        *,
        key: str | None = None,
        tenant: str = DEFAULT_TENANT,
        clock: Clock | None = None,
        random: RandomBytes = system_random,
        blobs: BlobStore | str | None = None,
    ) -> None:
        """As `Client`."""
        self._client = Client(target, key=key, tenant=tenant, clock=clock, random=random, blobs=blobs)
        self._engine = None if isinstance(target, str) else target
        super().__init__(LoopThread(self._open, self._close), self._client)

    def close(self) -> None:
        """Let go of the connection and end the thread. Jobs go on."""
        self._thread.stop()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def limits(self) -> SyncLimits:
        """As `Client.limits`."""
        return SyncLimits(self._thread, self._client.limits)

    @property
    def keys(self) -> SyncKeys:
        """As `Client.keys`."""
        return SyncKeys(self._thread, self._client.keys)

    @property
    def schedules(self) -> SyncSchedules:
        """As `Client.schedules`."""
        return SyncSchedules(self._thread, self._client.schedules)

    @property
    def files(self) -> SyncFiles:
        """As `Client.files`."""
        return SyncFiles(self._thread, self._client.files)

    def upload(self, content: Content, **about: Unpack[UploadOptions]) -> File:
        """As `Client.upload`."""
        return self.files.upload(content, **about)

    def download(self, file: File | str, path: Path | str) -> Path:
        """As `Client.download`."""
        return self.files.download(file, path)

    # -- one job

    def job(self, job_id: str) -> SyncJobHandle[Any]:
        """As `Client.job`."""
        return SyncJobHandle(self._thread, self._client.job(job_id))

    def get(self, job_id: str) -> JobBody:
        """As `Client.get`."""
        return self._thread.run(self._client.get(job_id))

    def result(self, job_id: str, timeout: float | None = None) -> Any:
        """As `Client.result`."""
        return self._thread.run(self._client.result(job_id, timeout))

    def events(self, job_id: str, after: str | None = None) -> Iterator[EventBody]:
        """As `Client.events`."""
        return _pulled(self._thread, self._client.events(job_id, after))

    def send(self, job_id: str, data: Any, *, key: str | None = None) -> JobBody:
        """As `Client.send`."""
        return self._thread.run(self._client.send(job_id, data, key=key))

    def cancel(self, job_id: str, reason: str | None = None, *, for_all: bool = False) -> JobBody:
        """As `Client.cancel`."""
        return self._thread.run(self._client.cancel(job_id, reason, for_all=for_all))

    def wake(self, job_id: str) -> JobBody:
        """As `Client.wake`."""
        return self._thread.run(self._client.wake(job_id))

    def retry(self, job_id: str) -> SyncJobHandle[Any]:
        """As `Client.retry`."""
        return self._one(self._client.retry(job_id))

    def delete(self, job_id: str, *, force: bool = False) -> None:
        """As `Client.delete`."""
        self._thread.run(self._client.delete(job_id, force=force))

    def deliveries(self, job_id: str) -> list[DeliveryBody]:
        """As `Client.deliveries`."""
        return self._thread.run(self._client.deliveries(job_id))

    def redeliver(self, job_id: str, delivery_id: str) -> DeliveryBody:
        """As `Client.redeliver`."""
        return self._thread.run(self._client.redeliver(job_id, delivery_id))

    # -- many

    def find(
        self,
        *,
        state: State | str | Iterable[State | str] = (),
        queue: str | None = None,
        task: str | None = None,
        tag: str | None = None,
        limit: int | None = None,
    ) -> Iterator[JobBody]:
        """As `Client.find`."""
        return _pulled(self._thread, self._client.find(state=state, queue=queue, task=task, tag=tag, limit=limit))

    def tasks(self) -> list[TaskBody]:
        """As `Client.tasks`."""
        return self._thread.run(self._client.tasks())

    def queues(self) -> list[QueueBody]:
        """As `Client.queues`."""
        return self._thread.run(self._client.queues())

    def usage(self, since: date | None = None, until: date | None = None) -> UsageList:
        """As `Client.usage`."""
        return self._thread.run(self._client.usage(since, until))

    def set_queue(self, queue: str, **changes: Any) -> QueueBody:
        """As `Client.set_queue`."""
        return self._thread.run(self._client.set_queue(queue, **changes))

    def pause(self, queue: str) -> QueueBody:
        """As `Client.pause`."""
        return self._thread.run(self._client.pause(queue))

    def resume(self, queue: str) -> QueueBody:
        """As `Client.resume`."""
        return self._thread.run(self._client.resume(queue))

    async def _open(self) -> None:
        if self._engine is not None:
            await self._engine.open()
        await self._client.open()

    async def _close(self) -> None:
        await self._client.close()
        if self._engine is not None:
            await self._engine.shut()


def _pulled(thread: LoopThread, source: AsyncIterator[T]) -> Iterator[T]:
    """An async iterator's items, fetched one by one from the loop's thread; closed there when dropped here."""
    try:
        while True:
            item = thread.run(_next(source))
            if item is None:
                return
            yield item[0]
    finally:
        with contextlib.suppress(EngineUnavailable):  # the client is closed, and with it the source
            thread.run(_aclose(source))


async def _next(source: AsyncIterator[T]) -> tuple[T] | None:
    try:
        return (await anext(source),)
    except StopAsyncIteration:
        return None


async def _aclose(source: AsyncIterator[Any]) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()

"""The client for code without an event loop: the same face, blocking; safe to share between threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, Unpack

from ropeway.blobs import BlobStore
from ropeway.blobs.handle import File
from ropeway.client.client import Client
from ropeway.client.deliveries import DeliveryBody
from ropeway.client.file_box import UploadOptions
from ropeway.client.files import Content
from ropeway.client.fleet import QueueBody, TaskBody
from ropeway.client.limits import SyncLimits
from ropeway.client.sync_files import SyncFiles
from ropeway.client.sync_keys import SyncKeys
from ropeway.client.sync_schedules import SyncSchedules
from ropeway.client.sync_submitter import SyncJobHandle, SyncSubmitter, pulled
from ropeway.client.thread import LoopThread
from ropeway.client.usage import UsageList
from ropeway.client.wire import EventBody, JobBody
from ropeway.domain.clock import Clock
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine

__all__ = ["SyncClient", "SyncJobHandle", "SyncSubmitter"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


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
        self._loop = LoopThread(self._open, self._close)
        super().__init__(self._loop, self._client)

    def close(self) -> None:
        """Let go of the connection and end the thread. Jobs go on."""
        self._loop.stop()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def limits(self) -> SyncLimits:
        """As `Client.limits`."""
        return SyncLimits(self._loop, self._client.limits)

    @property
    def keys(self) -> SyncKeys:
        """As `Client.keys`."""
        return SyncKeys(self._loop, self._client.keys)

    @property
    def schedules(self) -> SyncSchedules:
        """As `Client.schedules`."""
        return SyncSchedules(self._loop, self._client.schedules)

    @property
    def files(self) -> SyncFiles:
        """As `Client.files`."""
        return SyncFiles(self._loop, self._client.files)

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
        return pulled(self._thread, self._client.events(job_id, after))

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
        return pulled(self._thread, self._client.find(state=state, queue=queue, task=task, tag=tag, limit=limit))

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

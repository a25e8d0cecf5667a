"""Submitting from code without an event loop: handles and submitters whose methods block."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, overload

from ropeway.client.handle import JobHandle
from ropeway.client.submitter import BATCH_JOBS, Call, OptionChanges, Submitter, TaskLike, accepted, call
from ropeway.client.thread import Bridge
from ropeway.client.transport import Ending
from ropeway.client.wire import EventBody, JobBody
from ropeway.domain.errors import EngineUnavailable

__all__ = ["SyncJobHandle", "SyncSubmitter", "pulled"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class SyncJobHandle(Generic[R]):
    """A `JobHandle` whose methods block."""

    __slots__ = ("_handle", "_thread")

    def __init__(self, thread: Bridge, handle: JobHandle[R]) -> None:
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

    def value_of(self, ending: Ending) -> R:
        """As `JobHandle.value_of`."""
        return self._handle.value_of(ending)

    def get(self) -> JobBody:
        """As `JobHandle.get`."""
        return self._thread.run(self._handle.get())

    def result(self, timeout: float | None = None) -> R:
        """As `JobHandle.result`."""
        return self._thread.run(self._handle.result(timeout))

    def events(self, after: str | None = None) -> Iterator[EventBody]:
        """As `JobHandle.events`."""
        return pulled(self._thread, self._handle.events(after))

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

    def __init__(self, thread: Bridge, submitter: Submitter) -> None:
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


def pulled(thread: Bridge, source: AsyncIterator[T]) -> Iterator[T]:
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

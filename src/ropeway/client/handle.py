"""A submitted job in its submitter's hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

import msgspec

from ropeway.client.transport import Ending, Transport
from ropeway.client.wire import EventBody, JobBody
from ropeway.domain.errors import JobCancelled, JobError, JobFailed
from ropeway.domain.lifecycle import State

__all__ = ["JobHandle", "value_of"]

R = TypeVar("R")


class JobHandle(Generic[R]):
    """A job by its id. Cheap to make and to drop: the job goes on without it.

    `replayed` tells that an idempotency key gave back the job of an earlier submit.
    """

    __slots__ = ("_decode", "_transport", "id", "replayed")

    def __init__(
        self, transport: Transport, job_id: str, decode: Callable[[str], R] | None = None, replayed: bool = False
    ) -> None:
        self.id = job_id
        self.replayed = replayed
        self._transport = transport
        self._decode = decode

    async def get(self) -> JobBody:
        """The job as it stands. Raises JobNotFound once it is past its retention."""
        return await self._transport.get(self.id)

    async def result(self, timeout: float | None = None) -> R:
        """What the task returned, as its own output type; of a streaming task, all that it yielded.

        Waits for the end without polling, at most `timeout` seconds.

        Raises:
            JobFailed: with the recorded `error`. JobCancelled: with the reason, if one was given.
            WaitTimeout: it has not ended yet, and goes on.
        """
        result: R = value_of(await self._transport.ending(self.id, timeout), self._decode)
        return result

    def events(self, after: str | None = None) -> AsyncIterator[EventBody]:
        """The job's log from its beginning, or strictly after an event id; live, up to the terminal event."""
        return self._transport.events(self.id, after)

    async def cancel(self, reason: str | None = None) -> JobBody:
        """Ask for the end: a waiting job is cancelled on return, a running one is asked to stop."""
        return await self._transport.cancel(self.id, reason)

    async def retry(self) -> JobHandle[R]:
        """A new job with the same input and options. Raises JobNotRetryable while this one is live."""
        accepted = await self._transport.retry(self.id)
        return JobHandle(self._transport, accepted.id, self._decode, accepted.replayed)

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"


def value_of(ending: Ending, decode: Callable[[str], Any] | None = None) -> Any:
    """The output of a job that succeeded, by `decode` or as plain JSON values; else JobFailed or JobCancelled."""
    if ending.state is State.cancelled:
        raise JobCancelled(ending.id, ending.cancel_reason)
    if ending.state is not State.succeeded:
        raise JobFailed(ending.id, ending.error or JobError("task_error", "no error was recorded"))
    text = str(ending.output, "utf-8")
    return msgspec.json.decode(text) if decode is None else decode(text)

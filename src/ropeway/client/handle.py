"""A submitted job in its submitter's hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from ropeway.client.encoding import checked_key, encode_input
from ropeway.client.reference import Output
from ropeway.client.transport import Ending, Transport
from ropeway.client.wire import EventBody, JobBody
from ropeway.domain.errors import JobCancelled, JobError, JobFailed
from ropeway.domain.lifecycle import State

__all__ = ["JobHandle", "value_of"]

R = TypeVar("R")


class JobHandle(Generic[R]):
    """A job by its id. Cheap to make and to drop: the job goes on without it.

    `replayed` tells that an idempotency key gave back the job of an earlier submit, `cached` that the same content did:
    the job has ended well, or is under way and now shared.
    """

    __slots__ = ("_decode", "_transport", "cached", "id", "replayed")

    def __init__(
        self,
        transport: Transport,
        job_id: str,
        decode: Callable[[str], R] | None = None,
        replayed: bool = False,
        cached: bool = False,
    ) -> None:
        self.id = job_id
        self.replayed = replayed
        self.cached = cached
        self._transport = transport
        self._decode = decode

    @property
    def output(self) -> R:
        """What stands for the output in the input of another job, which then begins when this one has ended:

            page = await client.submit(fetch, url)
            summary = await client.submit(summarise, page.output)

        To the type checker it is what the task returns. It may stand anywhere in the input; here it holds nothing.
        """
        return cast(R, Output(self.id))

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
        return self.value_of(await self._transport.ending(self.id, timeout))

    def value_of(self, ending: Ending) -> R:
        """What `result` gives, or raises, of an end that is known."""
        result: R = value_of(ending, self._decode)
        return result

    def events(self, after: str | None = None) -> AsyncIterator[EventBody]:
        """The job's log from its beginning, or strictly after an event id; live, up to the terminal event."""
        return self._transport.events(self.id, after)

    async def send(self, data: Any, *, key: str | None = None) -> JobBody:
        """Send data up to the task, which reads it by `ctx.input()`. On return it is stored.

        A job that waits, after it began, goes on. Gives back the job as it stands.

        Args:
            data: any JSON; dataclasses and models as in a submit. At most 256 KiB.
            key: given to the task once, however often the same is sent under it. Without one, a call that the client
                itself has to repeat is given once too.

        Raises:
            JobNotRunning: it has not begun yet: send it again when it has.
            JobEnded: nobody will read it. JobNotFound. TooManyInputs: it has had 1,000.
            PayloadTooLarge, InputInvalid: of the data. InvalidRequest: of the key.
        """
        return await self._transport.send(self.id, encode_input(data), None if key is None else checked_key(key, "key"))

    async def cancel(self, reason: str | None = None, *, for_all: bool = False) -> JobBody:
        """Ask for the end: a waiting job is cancelled on return, a running one is asked to stop.

        A job that others share goes on for them: this takes one of them away. `for_all` ends it for everybody.
        """
        return await self._transport.cancel(self.id, reason, for_all)

    async def wake(self) -> JobBody:
        """Have a waiting job go on now: it is queued at once, whatever it waits for, a time or another job.

        One that finds that it still has to wait for other jobs does. A job that waits for nothing stays as it is.
        """
        return await self._transport.wake(self.id)

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

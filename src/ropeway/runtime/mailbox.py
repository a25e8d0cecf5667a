"""What is sent up to a running job, as its code reads it: in the order in which it came, each once in an attempt.

Nothing is asked of the engine before the code asks: most tasks are sent nothing. A hint wakes who waits, and it looks
again now and then all the same, since a hint may be lost.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.limit import LimitSignal
from ropeway.engines.base import Engine
from ropeway.engines.hints import Listener
from ropeway.engines.inputs import Given, Inputs, topic_of
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.inbox import Inbox

__all__ = ["InputStream", "Mailbox", "PostOffice"]

log = logging.getLogger("ropeway.worker")

LOOK_S = 15.0  # as all who wait for hints (reliability, rule 17)
AGAIN_S = 1.0  # with an engine that does not answer

_decode = msgspec.json.Decoder().decode


class PostOffice:
    """The mailboxes of one worker, the clearing away of those that are done with, and what attempts tell of limits."""

    def __init__(self, engine: Engine, inbox: Inbox) -> None:
        self.engine = engine
        self.inputs = Inputs(engine)
        self.inbox = inbox
        self._clearing: set[asyncio.Task[None]] = set()

    def mailbox(self, attempt: Attempt) -> Mailbox:
        """The attempt's own, made at its first use. From any thread that runs its code."""
        mail = attempt.mail
        if mail is None:
            mail = attempt.mail = Mailbox(attempt, self)
        assert isinstance(mail, Mailbox)
        return mail

    def clear(self, attempt: Attempt) -> None:
        """Delete what its job was sent, for the job has ended. Done soon; what is not done expires."""
        task = asyncio.get_running_loop().create_task(self._clear(attempt))
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)

    def tell(self, signals: Sequence[LimitSignal]) -> None:
        """Tell the engine what a provider told of limits, soon. From any thread."""
        self.inbox.post(self._tell, signals)

    async def close(self) -> None:
        """Finish what is being cleared away and told."""
        await asyncio.gather(*self._clearing)

    def _tell(self, signals: Sequence[LimitSignal]) -> None:
        task = asyncio.get_running_loop().create_task(self._signal(signals))
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)

    async def _signal(self, signals: Sequence[LimitSignal]) -> None:
        try:
            await self.engine.signal(signals)
        except EngineUnavailable as error:
            log.info("what was told of limits is lost: %s", error)

    async def _clear(self, attempt: Attempt) -> None:
        try:
            await self.inputs.drop(attempt.assignment.tenant, attempt.assignment.job_id)
        except EngineUnavailable as error:
            log.info("the inputs of %s are left to expire: %s", attempt.assignment.job_id, error)


class Mailbox:
    """One attempt's inputs. An attempt begins with the first: what an earlier one read is given again."""

    __slots__ = ("_attempt", "_given", "_hints", "_is_closed", "_keys", "_last", "_office", "_turn")

    def __init__(self, attempt: Attempt, office: PostOffice) -> None:
        self._attempt = attempt
        self._office = office
        self._turn = asyncio.Lock()
        self._given: deque[Given] = deque()
        self._keys: set[str] = set()
        self._last = 0
        self._hints: Listener | None = None
        self._is_closed = False

    async def take(self, timeout_s: float | None = None) -> Any:
        """The next input, when it is there. In the loop.

        Raises TimeoutError when none came within `timeout_s` seconds, CancelledError when the attempt is to stop.
        """
        if not self._office.inbox.here:
            raise RuntimeError("this is for async tasks: blocking code calls ctx.input_blocking()")
        async with asyncio.timeout(timeout_s), self._turn:
            while not self._given:
                await self._look()
            return _decode(self._given.popleft().data)

    async def take_now(self) -> tuple[Any, ...]:
        """The next input alone, if it is there; else nothing, without a wait. In the loop.

        Raises CancelledError when the attempt is to stop.
        """
        async with self._turn:
            while not self._given:
                if not await self._fetch():
                    return ()
            return (_decode(self._given.popleft().data),)

    def take_blocking(self, timeout_s: float | None = None) -> Any:
        """The same, for code on a thread."""
        if self._office.inbox.here:
            raise RuntimeError("this is for blocking code: an async task awaits ctx.input()")
        taking = asyncio.run_coroutine_threadsafe(self.take(timeout_s), self._office.inbox.loop)
        try:
            return taking.result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError(self._attempt.reason) from None

    def close(self) -> None:
        """The attempt is to stop, or has ended: whoever waits is let go. In the loop."""
        self._is_closed = True
        if self._hints is not None:
            self._hints.close()

    async def _look(self) -> None:
        """Fetch what is new, and wait for a hint when nothing is."""
        hints = self._listening()
        if not await self._fetch():
            await hints.wait(LOOK_S)

    def _listening(self) -> Listener:
        if self._hints is None:
            self._hints = self._office.engine.listen(topic_of(self._attempt.assignment.job_id))
        return self._hints

    async def _fetch(self) -> bool:
        """Whether there was anything new. An engine that does not answer is asked again.

        Raises CancelledError when the attempt is to stop.
        """
        assignment = self._attempt.assignment
        while True:
            if self._is_closed or self._attempt.reason is not None:
                raise asyncio.CancelledError(self._attempt.reason)
            try:
                page = await self._office.inputs.read(assignment.tenant, assignment.job_id, self._last)
                break
            except EngineUnavailable:
                await self._listening().wait(AGAIN_S)
        for given in page:
            self._last = given.n
            if given.key is None or given.key not in self._keys:
                self._given.append(given)
            if given.key is not None:
                self._keys.add(given.key)
        return bool(page)


class InputStream:
    """The inputs one after the other, without an end: `async for` in async tasks, `for` in blocking ones."""

    __slots__ = ("_mailbox",)

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await self._mailbox.take()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._mailbox.take_blocking()

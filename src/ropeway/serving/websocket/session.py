"""One socket: what its client asks, in order; what it follows, side by side; and how it ends.

Commands are taken one after the other, and the next is only read when the one before was answered, so a client that
asks faster than it is served waits on its own socket. Submits alone go on beside what follows, a few at a time: each
waits for the store, and many of them are one write there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any

from ropeway.domain.caller import Caller
from ropeway.domain.errors import InvalidRequest, JobNotFound, RopewayError
from ropeway.serving.parts import Parts
from ropeway.serving.problems import TooManySubscriptions, problem_of
from ropeway.serving.refusals import refused
from ropeway.serving.replies import Receive, Send
from ropeway.serving.stays import Stay
from ropeway.serving.websocket.frames import (
    Asked,
    ErrorTold,
    Message,
    Reconnect,
    Ref,
    Submit,
    encode,
    read_message,
    ref_in,
    told_s,
)
from ropeway.serving.websocket.subscription import Subscription

__all__ = ["MAX_SUBSCRIPTIONS", "Ending", "Session", "spread_ms"]

MAX_SUBSCRIPTIONS = 200
TURNS = 32  # subscriptions that may hold events in their hands at once
SUBMITS = 32  # that may be under way at once
GOODBYE_S = 1.0

LEFT_REASON = "the client disconnected"

_log = logging.getLogger("ropeway.serving")

Command = Callable[[Asked], Awaitable[None]]


class Ending(Enum):
    """How a socket ends: its close code, and why."""

    left = (1000, "")
    not_text = (1003, "frames are text: JSON objects")
    too_large = (1009, "the frame is too large")
    drain = (1012, "this gateway stops: come back, to another maybe")
    broken = (1012, "the gateway cannot go on with this socket: come back")
    expelled = (4401, "the key is over")
    stalled = (4408, "nothing was taken for too long: subscribe again after the last event")


class _Over(Exception):
    """Nothing can be said any more."""


class Session:
    """A socket that was accepted. `caller` is whose it is; `base`, where the gateway is mounted."""

    def __init__(self, parts: Parts, caller: Caller, base: str, receive: Receive, send: Send) -> None:
        self.parts = parts
        self.caller = caller
        self.base = base
        self.stay: Stay | None = None
        self.turns = asyncio.Semaphore(TURNS)
        self._receive = receive
        self._send = send
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._submits = asyncio.Semaphore(SUBMITS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._following: dict[str, tuple[Subscription, asyncio.Task[None]]] = {}
        self._reserved = 0

    async def run(self, command: Command) -> None:
        """Serve it to its end; `command` does what its client asks, and is one of the watches that the gateway has."""
        self._start(self._read(command))
        try:
            ending = await self._ended
            leaving = [sub.job_id for sub, _ in self._following.values() for _ in range(sub.shares)]
        finally:
            await self._stop_all()
        await self._say_goodbye(ending)
        if ending in (Ending.left, Ending.stalled):
            await self._leave(leaving)

    async def _leave(self, job_ids: list[str]) -> None:
        """Cancel for whom went: once for each of its shares in a job."""
        while job_ids:
            once = list(dict.fromkeys(job_ids))
            await self.parts.engine.cancel(self.caller.tenant, once, LEFT_REASON)
            for job_id in once:
                job_ids.remove(job_id)

    def shares(self, job_id: str) -> int:
        """How many shares of a job that it follows leave with this socket's client."""
        followed = self._following.get(job_id)
        return 0 if followed is None else followed[0].shares

    def drain(self) -> None:
        self._end(Ending.drain)

    def expel(self) -> None:
        self._end(Ending.expelled)

    # -- what is said

    async def say(self, message: Message) -> None:
        """Send a message; waits as long as the client does not take what was sent before."""
        await self.say_text(encode(message))

    async def say_text(self, text: str) -> None:
        """The same, of one that is JSON already."""
        try:
            with self.parts.deadlines.limit(self.parts.options.write_deadline_s):
                await self._send({"type": "websocket.send", "text": text})
        except TimeoutError:
            _log.info("a socket took nothing for %g s", self.parts.options.write_deadline_s)
            self._end(Ending.stalled)
            raise _Over from None
        except Exception as error:  # each server has its own way to say that the client is gone
            self._end(Ending.left)
            raise _Over from error

    async def refuse(self, ref: Ref, error: RopewayError, **more: Any) -> None:
        """Tell why something was not done, or goes on no more."""
        self.parts.noticed(error)
        problem, after_s = refused(error, self.parts.rates)
        await self.say(ErrorTold(ref, problem, told_s(after_s), **more))

    # -- what is followed

    @contextlib.contextmanager
    def reserve(self, job_id: str | None = None) -> Any:
        """Hold a place for a subscription while it is made. Raises TooManySubscriptions."""
        if job_id not in self._following and len(self._following) + self._reserved >= MAX_SUBSCRIPTIONS:
            raise TooManySubscriptions(f"{MAX_SUBSCRIPTIONS} jobs are followed on this socket: open another")
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    def follow(self, subscription: Subscription) -> None:
        """Send this job's events from now on, in the place of a subscription to the same job."""
        self.unfollow(subscription.job_id)
        task = self._start(self._follow(subscription))
        self._following[subscription.job_id] = (subscription, task)

    def unfollow(self, job_id: str) -> bool:
        """Send this job's events no more; whether they were sent."""
        followed = self._following.pop(job_id, None)
        if followed is not None:
            followed[1].cancel()
            followed[0].close()
        return followed is not None

    async def _follow(self, subscription: Subscription) -> None:
        try:
            await subscription.run()
        except JobNotFound as error:  # deleted under its reader
            await self.refuse(subscription.ref, error, job_id=subscription.job_id)
        if self._following.get(subscription.job_id, (None,))[0] is subscription:
            del self._following[subscription.job_id]

    # -- what is asked

    async def _read(self, command: Command) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._end(Ending.left)
                return
            text = message.get("text")
            if text is None:
                await self.refuse(None, InvalidRequest("frames are text: JSON objects, not binary"))
                self._end(Ending.not_text)
                return
            if len(text) > self.parts.options.max_body_bytes:  # by a server that has no limit itself
                self._end(Ending.too_large)
                return
            await self._take(text, command)

    async def _take(self, text: str, command: Command) -> None:
        try:
            asked = read_message(text, self.parts.options.max_depth)
        except RopewayError as error:
            await self.refuse(ref_in(text), error)
            return
        if isinstance(asked, Submit):
            await self._submits.acquire()
            self._start(self._do(asked, command)).add_done_callback(lambda _: self._submits.release())
        else:
            await self._do(asked, command)

    async def _do(self, asked: Asked, command: Command) -> None:
        try:
            await command(asked)
        except RopewayError as error:
            await self.refuse(asked.ref, error)
        except _Over:
            raise
        except Exception as error:
            problem = problem_of(error)
            _log.exception("%s: %s on a socket failed", problem.instance, type(asked).__name__)
            await self.say(ErrorTold(asked.ref, problem))

    # -- how it goes

    def _start(self, part: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(part)
        self._tasks.add(task)
        task.add_done_callback(self._part_ended)
        return task

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, _Over):
            _log.error("a socket broke; its client is asked to come back", exc_info=error)
            if isinstance(error, RopewayError):
                self.parts.noticed(error)
            self._end(Ending.broken)

    def _end(self, ending: Ending) -> None:
        if not self._ended.done():
            self._ended.set_result(ending)

    async def _stop_all(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        for job_id in tuple(self._following):
            self.unfollow(job_id)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _say_goodbye(self, ending: Ending) -> None:
        if ending is Ending.left:
            return
        code, reason = ending.value
        with contextlib.suppress(Exception):  # the client may be gone, or stuck
            async with asyncio.timeout(GOODBYE_S):
                if ending in (Ending.drain, Ending.broken):
                    await self._send({"type": "websocket.send", "text": encode(Reconnect(spread_ms()))})
        with contextlib.suppress(Exception):
            async with asyncio.timeout(GOODBYE_S):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})


def spread_ms() -> int:
    """When a client should come back: spread, so that a thousand do not come at once."""
    return random.randrange(200, 2_000)  # noqa: S311 - a spread, not a secret

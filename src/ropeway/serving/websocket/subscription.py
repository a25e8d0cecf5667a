"""One job followed on a socket: a cursor of its own, which reads the log when the socket takes what was read before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from ropeway.domain.event import START, TERMINAL_TYPES, Cursor, Event
from ropeway.engines.hints import Listener
from ropeway.serving.forms import envelope
from ropeway.serving.parts import Parts
from ropeway.serving.streams import LogReader
from ropeway.serving.websocket.frames import event_message

__all__ = ["Subscription"]

Say = Callable[[str], Awaitable[None]]


class Subscription:
    """A reader of one job's log.

    `turns` is shared by all of a socket: only who has one holds events in its hands, so what a slow socket makes this
    process keep is a page for each turn, however many jobs it follows.
    """

    __slots__ = ("_base", "_events", "_hints", "_parts", "_reader", "_say", "_turns", "job_id", "ref", "shares")

    def __init__(
        self,
        parts: Parts,
        tenant: str,
        job_id: str,
        *,
        ref: str | int | None,
        base: str,
        say: Say,
        turns: asyncio.Semaphore,
        after: Cursor = START,
        types: Iterable[str] | None = None,
        shares: int = 0,
    ) -> None:
        self.job_id = job_id
        self.ref = ref
        self.shares = shares  # so many of the job's sharers leave with its client
        self._parts = parts
        self._base = base
        self._say = say
        self._turns = turns
        self._reader = LogReader(parts, tenant, job_id, after, None if types is None else frozenset(types))
        self._hints: Listener | None = None
        self._events: list[Event] | None = None

    async def open(self) -> bool:
        """Listen, and look; whether there is anything to come. Raises JobNotFound."""
        self._hints = self._parts.engine.listen(f"job:{self.job_id}")
        try:
            self._events = await self._reader.read()
        except BaseException:
            self.close()
            raise
        return bool(self._events) or not self._reader.ended

    async def run(self) -> None:
        """Send events as they come, to the end of the log. Raises JobNotFound when the job is deleted under it."""
        assert self._hints is not None, "not open"
        try:
            while True:
                async with self._turns:
                    await self._send(await self._next())
                if self._reader.ended:
                    return
                if not self._reader.is_behind:
                    self._reader.hinted = bool(await self._hints.wait(self._parts.options.recheck_s))
        finally:
            self.close()

    def close(self) -> None:
        """Listen no more."""
        if self._hints is not None:
            self._hints.close()

    async def _next(self) -> list[Event]:
        events, self._events = self._events, None
        return await self._reader.read() if events is None else events

    async def _send(self, events: list[Event]) -> None:
        for event in events:
            job = await self._reader.final_job(self._base) if event.type in TERMINAL_TYPES else None
            await self._say(event_message(envelope(event, job)))

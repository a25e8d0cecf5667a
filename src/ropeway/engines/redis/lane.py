"""Concurrent calls of one kind as one script: what comes while others are on their way goes with the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from ropeway.domain.errors import EngineUnavailable
from ropeway.engines.redis.route import Unreachable

__all__ = ["MAX_BYTES", "MAX_ITEMS", "Lane", "chunks"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MAX_ITEMS = 128  # a script stops the server for as long as it runs: 128 jobs are 2 ms
MAX_BYTES = 256 * 1024
FLIGHTS = 2  # scripts of one lane on their way at once: the server works on one while the other is made
FULL_FLIGHTS = 4  # the same of full ones, which waiting makes no fuller: a client that makes more is away for as long


class Lane(Generic[Item, Answer]):
    """Gathers items from all callers. `carry` sends at most MAX_ITEMS of them, and answers each."""

    def __init__(
        self, carry: Callable[[list[Item]], Awaitable[Sequence[Answer]]], size: Callable[[Item], int] | None = None
    ) -> None:
        self._carry = carry
        self._size = size
        self._waiting: deque[tuple[Sequence[Item], asyncio.Future[list[Answer]]]] = deque()
        self._flights = 0
        self._flying: set[asyncio.Task[None]] = set()
        self._called = False

    async def do(self, items: Sequence[Item]) -> list[Answer]:
        """The answers, in the items' order. Raises what the script that carried the first failing one raised."""
        parts = self._parts(items)
        if len(parts) == 1 and not self._busy:
            return await self._alone(parts[0])
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[list[Answer]]] = [loop.create_future() for _ in parts]
        self._waiting.extend(zip(parts, futures, strict=True))
        if self._may_depart and not self._called:
            self._called = True
            loop.call_soon(self._depart)
        answers: list[Answer] = []
        for future in futures:
            answers += await future
        return answers

    async def idle(self) -> None:
        """Until everything on its way has arrived."""
        while self._busy:
            await asyncio.wait(self._flying) if self._flying else await asyncio.sleep(0)

    @property
    def _busy(self) -> bool:
        return bool(self._flights or self._waiting)

    @property
    def _may_depart(self) -> bool:
        if not self._waiting:
            return False
        return self._flights < (FULL_FLIGHTS if len(self._waiting[0][0]) == MAX_ITEMS else FLIGHTS)

    async def _alone(self, items: Sequence[Item]) -> list[Answer]:
        """On an idle lane a call goes at once, by itself and in its caller's own task."""
        self._flights += 1
        try:
            return list(await self._carry(list(items)))
        except Exception as error:
            self._turn_away(error)
            raise
        finally:
            self._flights -= 1
            if self._waiting:
                self._depart()

    def _parts(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """The items as loads of which each may go in one script."""
        if self._size is None:
            return chunks(items)
        parts: list[Sequence[Item]] = []
        start = size = 0
        for place, item in enumerate(items):
            weight = self._size(item)
            if place > start and (size + weight > MAX_BYTES or place - start >= MAX_ITEMS):
                parts.append(items[start:place])
                start, size = place, 0
            size += weight
        if start < len(items):
            parts.append(items[start:])
        return parts

    def _depart(self) -> None:
        self._called = False
        while self._may_depart:
            self._flights += 1
            flight = asyncio.ensure_future(self._fly(self._load()))
            self._flying.add(flight)
            flight.add_done_callback(self._landed)

    def _load(self) -> list[tuple[Sequence[Item], asyncio.Future[list[Answer]]]]:
        """The next parts that one script may take together."""
        load = [self._waiting.popleft()]
        count = len(load[0][0])
        bound = MAX_ITEMS if self._size is None else MAX_ITEMS // 2  # parts may be large: two of half the bytes
        while self._waiting and count + len(self._waiting[0][0]) <= bound:
            load.append(self._waiting.popleft())
            count += len(load[-1][0])
        return load

    async def _fly(self, load: list[tuple[Sequence[Item], asyncio.Future[list[Answer]]]]) -> None:
        try:
            answers = await self._carry([item for items, _ in load for item in items])
        except BaseException as error:
            for _, future in load:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # a caller may be gone
            self._turn_away(error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for items, future in load:
            if not future.done():
                future.set_result(list(answers[start : start + len(items)]))
            start += len(items)

    def _turn_away(self, error: BaseException) -> None:
        """When nobody was reached for those before: what waits behind them has waited as long, and was not sent."""
        if not isinstance(error, Unreachable) and not isinstance(error.__cause__, Unreachable):
            return
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(EngineUnavailable(str(error)))
                future.exception()

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights -= 1
        self._flying.discard(flight)
        if self._waiting:
            self._depart()


def chunks(items: Sequence[Item], size: int = MAX_ITEMS) -> list[Sequence[Item]]:
    """The items, so many at a time."""
    return [items[start : start + size] for start in range(0, len(items), size)]

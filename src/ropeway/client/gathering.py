"""Submits that come together go out together: one call carries what concurrent callers ask for.

A call costs the client about 2 ms of CPU whatever it carries, and the gateway and its engine a commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ropeway.client.transport import Accepted, Order
from ropeway.domain.errors import RopewayError

__all__ = ["Answer", "Gathering"]

Answer = Accepted | RopewayError

IN_FLIGHT = 4  # calls at once; what comes while they are all out goes with the next


class Gathering:
    """Gathers orders in a turn of the loop, and longer while enough calls are out. A lone order waits for nobody."""

    def __init__(self, send: Callable[[Sequence[Order]], Awaitable[list[Answer]]]) -> None:
        """`send` answers a batch, a refusal in its order's place; what it raises holds for all."""
        self._send = send
        self._waiting: list[tuple[Order, asyncio.Future[Answer]]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def submit(self, order: Order) -> Answer:
        """The answer to one order. A caller that is cancelled no longer waits; its order may be stored all the same."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._go)
        self._waiting.append((order, answer))
        return await answer

    async def finish(self) -> None:
        """Until every call that is out has come back."""
        while self._calls:
            await asyncio.wait(tuple(self._calls))

    def _go(self) -> None:
        if self._waiting and len(self._calls) < IN_FLIGHT:
            batch, self._waiting = self._waiting, []
            call = asyncio.get_running_loop().create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._back)

    def _back(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._go()

    async def _call(self, batch: Sequence[tuple[Order, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._send([order for order, _ in batch])
        except asyncio.CancelledError:  # the client is being closed
            for _, waiter in batch:
                waiter.cancel()
            raise
        except Exception as error:
            for _, waiter in batch:
                if not waiter.done():
                    waiter.set_exception(error)
            return
        for (_, waiter), answer in zip(batch, answers, strict=True):
            if not waiter.done():
                waiter.set_result(answer)

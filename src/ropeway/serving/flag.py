"""A flag to wait for that is small, for connections by the thousand; and how a connection of ours tells of its end.

asyncio's Event keeps a queue of those who wait, 700 bytes of it, also when nobody does. In a connection one task waits
at the most. And a task of its own for each stream, which only waits for the client's leaving, would be 1,700 bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ropeway.serving.replies import Receive

__all__ = ["Flag", "departure_of"]


class Flag:
    """As asyncio.Event, for one who waits.

    `gone`: the connection is lost. `call`, when given, is called whenever the flag is raised. `transport` is the
    connection's, to be cut off at once.
    """

    __slots__ = ("_raised", "_waiter", "call", "gone", "transport")

    def __init__(self, *, raised: bool = False, transport: asyncio.Transport | None = None) -> None:
        self.gone = False
        self.transport = transport
        self.call: Callable[[], None] | None = None
        self._raised = raised
        self._waiter: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        return self._raised

    def set(self) -> None:
        self._raised = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.call is not None:
            self.call()

    def clear(self) -> None:
        self._raised = False

    async def wait(self) -> None:
        """Until the flag is up; at once when it is."""
        while not self._raised:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None


def departure_of(receive: Receive) -> Flag | None:
    """The flag that tells of a client's leaving by a call; None where the server must be asked.

    That is any server but ours (connection.py), and a request whose body still comes: somebody must take it.
    """
    cycle: Any = getattr(receive, "__self__", None)
    flag = getattr(cycle, "message_event", None)
    return flag if isinstance(flag, Flag) and not cycle.more_body else None

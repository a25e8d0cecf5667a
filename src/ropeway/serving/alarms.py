"""Wake-ups by the thousand: one timer for all of them, which looks now and then whose time has come.

A timer of its own for each stream, set anew at each event, costs as much as the event; and thousands of streams that
were opened together would all wake together. These come up to a tick late, and a few at a time.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["Alarms", "Sleeper"]

AT_ONCE = 100
PAUSE_S = 0.01


class Sleeper(Protocol):
    """Who may be woken."""

    def wake(self) -> None: ...


class Alarms:
    """The wake-ups of one loop: one for each sleeper, called once."""

    def __init__(self, tick_s: float = 1.0) -> None:
        self._tick_s = tick_s
        self._due_s: dict[Sleeper, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def set(self, sleeper: Sleeper, in_s: float) -> None:
        """Wake it in so many seconds, and not when it was to be before."""
        loop = asyncio.get_running_loop()
        self._due_s[sleeper] = loop.time() + in_s
        if self._timer is None:
            self._timer = loop.call_later(self._tick_s, self._tick, loop)

    def drop(self, sleeper: Sleeper) -> None:
        """Wake it no more."""
        self._due_s.pop(sleeper, None)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        due = [sleeper for sleeper, due_s in self._due_s.items() if due_s <= now_s]
        for sleeper in due[:AT_ONCE]:
            del self._due_s[sleeper]
            sleeper.wake()
        pause_s = PAUSE_S if len(due) > AT_ONCE else self._tick_s
        self._timer = loop.call_later(pause_s, self._tick, loop) if self._due_s else None

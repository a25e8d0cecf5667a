"""Progress of one attempt: many reports, few events. At most 10 a second, and the last is always kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ropeway.domain.clock import Clock
from ropeway.runtime.inbox import Inbox

__all__ = ["PROGRESS_GAP_S", "Progress"]

PROGRESS_GAP_S = 0.1  # http-api.md, event log: at most 10 a second


class Progress:
    """Lets a report through at once when the last is old enough; otherwise the newest of those that wait goes later."""

    __slots__ = ("_at_s", "_clock", "_inbox", "_late", "_latest", "_posted", "_send", "_timer")

    def __init__(self, inbox: Inbox, clock: Clock, send: Callable[[str], None]) -> None:
        self._inbox = inbox
        self._clock = clock
        self._send = send
        self._at_s = float("-inf")
        self._latest = ""
        self._late: str | None = None
        self._posted = False
        self._timer: asyncio.TimerHandle | None = None

    def report(self, data: str) -> None:
        """From any thread. One that reports in a tight loop posts one call to the loop, not thousands."""
        self._latest = data
        if self._inbox.here:
            self._pass_on()
        elif not self._posted:
            self._posted = True
            self._inbox.post(self._pass_on)

    def flush(self) -> None:
        """Send the report that still waits for its time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._late is not None:
            self._deliver(self._late)

    def _pass_on(self) -> None:
        self._posted = False
        wait_s = self._at_s + PROGRESS_GAP_S - self._clock.monotonic_s()
        if wait_s <= 0:
            self._deliver(self._latest)
            return
        self._late = self._latest
        if self._timer is None:
            self._timer = self._inbox.loop.call_later(wait_s, self.flush)

    def _deliver(self, data: str) -> None:
        self._late = None
        self._at_s = self._clock.monotonic_s()
        self._send(data)

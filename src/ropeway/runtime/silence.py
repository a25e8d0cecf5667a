"""Notices an attempt that is silent for too long: before its first output, or between two of them.

Output is what the job's readers get as such: what a generator yields, and `ctx.emit`. Progress, logs and usage are not:
a stream that stands still is no better for a thread beside it that reports. An attempt has one timer at most, which
looks when the last output was; an output costs a look at the clock, and only in an attempt that has such a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ropeway.domain.job import JobOptions
from ropeway.runtime.attempt import Reason
from ropeway.runtime.feed import Feed

__all__ = ["Silence", "listening"]

SLACK_S = 0.05  # a timer that is later than this comes from a loop that stood still, and heard nothing meanwhile
GRACE_S = 1.0  # what waits to be heard then gets as long as the loop stood still, and no longer than this


def listening(
    options: JobOptions, loop: asyncio.AbstractEventLoop, feed: Feed | None, stop: Callable[[Reason], None]
) -> Silence:
    """Begin to listen to the attempt of a job with such a limit. One without a feed has one output: its end."""
    silence = Silence(options, loop, feed, stop)
    if feed is not None:
        feed.heard = silence.heard
    silence.begin()
    return silence


class Silence:
    """In the loop. `stop` is called once, with the reason, when a limit is passed."""

    __slots__ = ("_between_s", "_feed", "_first_s", "_is_late", "_last_s", "_loop", "_stop", "_timer")

    def __init__(
        self, options: JobOptions, loop: asyncio.AbstractEventLoop, feed: Feed | None, stop: Callable[[Reason], None]
    ) -> None:
        self._first_s = options.first_output_timeout_s
        self._between_s = options.output_timeout_s
        self._loop = loop
        self._feed = feed
        self._stop = stop
        self._last_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_late = False

    def begin(self) -> None:
        """The attempt begins."""
        if self._first_s is not None:
            self._look_at(self._loop.time() + self._first_s)

    def heard(self) -> None:
        """An output came."""
        is_first, self._last_s = self._last_s is None, self._loop.time()
        if is_first:
            self.end()
            if self._between_s is not None:
                self._look_at(self._last_s + self._between_s)

    def end(self) -> None:
        """Listen no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, at_s: float) -> None:
        self._timer = self._loop.call_at(at_s, self._look, at_s)

    def _look(self, at_s: float) -> None:
        now_s = self._loop.time()
        due_s = now_s if self._last_s is None else self._last_s + (self._between_s or 0.0)
        if self._feed is not None and self._feed.full:  # it is the engine that is slow, and the code waits for it
            self._last_s = now_s
            due_s = now_s + (self._between_s or self._first_s or 0.0)
        if due_s > now_s:
            self._is_late = False
            self._look_at(due_s)
        elif now_s - at_s > SLACK_S and not self._is_late:
            self._is_late = True
            self._look_at(now_s + min(now_s - at_s, GRACE_S))
        else:
            self._timer = None
            self._stop(Reason.first_output_timeout if self._last_s is None else Reason.output_timeout)

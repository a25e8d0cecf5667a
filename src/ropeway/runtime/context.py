"""What a task is given to know its job by, and to tell how it is getting on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, Protocol, TypeVar

from ropeway.runtime.attempt import Attempt
from ropeway.runtime.feed import Feed

__all__ = ["Context", "Level", "Steps"]

P = ParamSpec("P")
T = TypeVar("T")

Level = Literal["debug", "info", "warning", "error"]


class Steps(Protocol):
    """Runs blocking steps on threads."""

    async def step(self, call: Callable[[], T]) -> T: ...


class Context:
    """The running attempt, as its task sees it. Every method may be called from any thread.

    A task gets one by a parameter named `ctx`, or annotated `Context`.
    """

    __slots__ = ("_attempt", "_feed", "_steps")

    def __init__(self, attempt: Attempt, feed: Feed, steps: Steps) -> None:
        self._attempt = attempt
        self._feed = feed
        self._steps = steps

    @property
    def job_id(self) -> str:
        """The same for every attempt of the job: the key for side effects that must happen once."""
        return self._attempt.assignment.lease.job_id

    @property
    def attempt(self) -> int:
        """From 1. Attempts of one job may overlap, when a worker was taken for dead and was not."""
        return self._attempt.assignment.attempt

    @property
    def tenant(self) -> str:
        return self._attempt.assignment.tenant

    @property
    def queue(self) -> str:
        return self._attempt.assignment.queue

    @property
    def task(self) -> str:
        return self._attempt.assignment.task

    @property
    def cancelled(self) -> bool:
        """Whether the task should stop: a client asked, it is out of time, or its worker goes. For blocking code."""
        return self._attempt.reason is not None or self._attempt.session.lost

    @property
    def stop_reason(self) -> str | None:
        """Why it should stop: `cancel`, `timeout`, `drain` or `lost`; None while it may go on."""
        return "lost" if self._attempt.lost else self._attempt.reason

    def check_cancelled(self) -> None:
        """Raise asyncio.CancelledError when the task should stop. Let it pass through: it is no failure."""
        if self.cancelled:
            raise asyncio.CancelledError(self.stop_reason)

    def progress(self, fraction: float | None, step: str | None = None, message: str | None = None) -> None:
        """Tell how far the task is: `fraction` of 1, held to 0..1, and what it is doing.

        Call it as often as you like: at most 10 a second are kept, and the last one always.
        """
        data = {
            "fraction": None if fraction is None else min(max(float(fraction), 0.0), 1.0),
            "step": step,
            "message": message,
        }
        self._feed.progress({name: value for name, value in data.items() if value is not None})

    def log(self, message: str, level: Level = "info") -> None:
        """A line for those who follow the job."""
        self._feed.log(message, level)

    def emit(self, item: Any) -> None:
        """Stream a part of the output, from a task that is no generator. Its readers get it as an `output.delta`.

        What the task returns stays its output; when it returns None, the output is what it emitted. A blocking task
        waits here while too much is unsaved; in an async one, write a generator to be slowed down so.
        """
        self._feed.emit(item)

    def usage(self, **amounts: Any) -> None:
        """Add to what the attempt has used: `ctx.usage(input_tokens=812, output_tokens=64)`. Numbers add up."""
        self._feed.usage(amounts)

    async def to_thread(self, step: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking step on the worker's threads and await what it returns, or raises.

        Steps share the worker's `threads` with its blocking tasks. A cancelled await leaves the step running: a long
        one should look at `ctx.cancelled`.
        """
        return await self._steps.step(lambda: step(*args, **kwargs))

"""What a task is given to know its job by, and to tell how it is getting on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, Protocol, TypeVar

from ropeway.runtime.artifacts import Artifacts, Content, Saving
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.feed import Feed
from ropeway.runtime.mailbox import InputStream, PostOffice

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

    __slots__ = ("_artifacts", "_attempt", "_feed", "_post", "_steps")

    def __init__(self, attempt: Attempt, feed: Feed, steps: Steps, post: PostOffice, artifacts: Artifacts) -> None:
        self._attempt = attempt
        self._feed = feed
        self._steps = steps
        self._post = post
        self._artifacts = artifacts

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
    def timeout(self) -> float | None:
        """Seconds that this attempt may run in all; None when nobody set a limit."""
        return self._attempt.assignment.options.timeout_s

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

    def artifact(self, name: str, content: Content, content_type: str | None = None) -> Saving:
        """Keep a file that belongs to the job, and tell of it by an `artifact` event once it is kept.

            plot = await ctx.artifact("plot.png", png, "image/png")       # in a blocking task without `await`

        `content` is a Path, bytes, or an iterator of bytes, blocking or not. What is not awaited is kept by the time
        the job succeeds. It goes when the job does. Raises FilesNotKept on a worker without a store, InvalidRequest,
        StorageFull, FilesUnavailable.
        """
        self._feed.check_open()
        return self._artifacts.save(self._attempt, self._feed, name, content, content_type)

    def usage(self, **amounts: Any) -> None:
        """Add to what the attempt has used: `ctx.usage(input_tokens=812, output_tokens=64)`. Numbers add up."""
        self._feed.usage(amounts)

    def inputs(self) -> InputStream:
        """What is sent up to the job while it runs, as it comes: `async for turn in ctx.inputs()`.

        In blocking code a plain `for`. It has no end of its own: leave it by `break`, or with the attempt. Each input
        is given once in an attempt; the next attempt is given all of them again, from the first.
        """
        return InputStream(self._post.mailbox(self._attempt))

    async def input(self, timeout_s: float | None = None) -> Any:
        """The next input, when it is there. Raises TimeoutError when none comes within `timeout_s` seconds."""
        return await self._post.mailbox(self._attempt).take(timeout_s)

    def wait_input(self, timeout_s: float | None = None) -> Any:
        """As `input`, for blocking code: it waits in its thread."""
        return self._post.mailbox(self._attempt).take_blocking(timeout_s)

    async def to_thread(self, step: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking step on the worker's threads and await what it returns, or raises.

        Steps share the worker's `threads` with its blocking tasks. A cancelled await leaves the step running: a long
        one should look at `ctx.cancelled`.
        """
        return await self._steps.step(lambda: step(*args, **kwargs))

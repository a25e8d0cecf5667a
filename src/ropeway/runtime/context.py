"""What a task is given to know its job by, and to tell how it is getting on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar, overload

import msgspec

from ropeway.domain.budget import named_limits
from ropeway.domain.limit import LimitSignal
from ropeway.runtime.artifacts import Artifacts, Content, Saving
from ropeway.runtime.attempt import Attempt, Reason, Snooze
from ropeway.runtime.composing.context import ComposingContext
from ropeway.runtime.composing.others import Others
from ropeway.runtime.feed import Feed
from ropeway.runtime.mailbox import InputStream, PostOffice
from ropeway.runtime.resuming import Resuming
from ropeway.runtime.snoozing import Snoozed, delay_ms_of, plain_detail
from ropeway.runtime.steps import Steps, Threads

__all__ = ["Context", "Level"]

P = ParamSpec("P")
T = TypeVar("T")

Level = Literal["debug", "info", "warning", "error"]


class Context(ComposingContext):
    """The running attempt, as its task sees it. Every method may be called from any thread.

    A task gets one by a parameter named `ctx`, or annotated `Context`.
    """

    __slots__ = ("_artifacts", "_resuming", "_threads")

    def __init__(
        self,
        attempt: Attempt,
        feed: Feed,
        threads: Threads,
        post: PostOffice,
        artifacts: Artifacts,
        resuming: Resuming,
        others: Others,
    ) -> None:
        super().__init__(attempt, feed, others, post)
        self._threads = threads
        self._artifacts = artifacts
        self._resuming = resuming

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
        """Why it should stop: `cancel`, `timeout`, `first_output_timeout`, `output_timeout`, `drain` or `lost`.

        None while it may go on.
        """
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

    def input_blocking(self, timeout_s: float | None = None) -> Any:
        """As `input`, for blocking code: it waits in its thread."""
        return self._post.mailbox(self._attempt).take_blocking(timeout_s)

    async def to_thread(self, step: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking step on the worker's threads and await what it returns, or raises.

        Steps share the worker's `threads` with its blocking tasks. A cancelled await leaves the step running: a long
        one should look at `ctx.cancelled`.
        """
        return await self._threads.step(lambda: step(*args, **kwargs))

    @property
    def partial(self) -> Any:
        """What earlier attempts of a job have put out, where its task is `resumable`; None when that is nothing.

        Text for a text, else the list of the items, as JSON has them. Go on from it: what this attempt puts out comes
        after it, for the readers and in the job's output.
        """
        earlier = self._attempt.earlier
        if earlier is None or not self._attempt.assignment.options.resumable:
            return None
        output = earlier.output
        return None if output is None else msgspec.json.decode(output)

    def snooze(
        self, seconds: float | None = None, *, until: datetime | None = None, reason: str | None = None
    ) -> NoReturn:
        """End this attempt now, and have the job run again after so many seconds, or at a time. It costs no attempt.

            if not batch.done:
                ctx.snooze(60, reason="the provider works on the batch")

        The next attempt begins from the start; what is done already is kept by `step`. A time that has passed is now.
        `reason` is shown with the job while it waits. A job may snooze `max_snoozes` times, then it fails.

        Never returns: code that swallows what it raises has ended its attempt all the same. Raises ValueError for a
        delay out of range, CancelledError when the attempt was to stop already.
        """
        delay_ms = delay_ms_of(seconds, until, self._feed.clock.now_ms())
        if self._attempt.reason is not None and self._attempt.reason is not Reason.drain:
            raise asyncio.CancelledError(self.stop_reason)
        self._feed.check_open()
        self._attempt.snooze = Snooze(delay_ms, plain_detail(reason))
        raise Snoozed

    def throttled(self, after_s: float, *, limit: str | None = None, reason: str | None = None) -> NoReturn:
        """End this attempt, for a provider takes nothing for so many seconds: all jobs under the limit wait as long.

            if response.status_code == 429:
                ctx.throttled(float(response.headers["retry-after"]))

        It costs no attempt; the job snoozes (see `snooze`, whose errors it raises). `limit`: which of the job's limits
        the provider means, by its key or a budget's name; None for all that have a rate, or else all.
        """
        self.limit_told(limit, pause_s=after_s)
        self.snooze(after_s, reason=reason or "the provider asked to wait")

    def limit_told(self, limit: str | None = None, *, left: float | None = None, pause_s: float = 0.0) -> None:
        """Pass on what a provider told of a limit: so much is left, as in its headers; or a pause, and go on.

        It only ever lowers what is believed to be left. `limit` as in `throttled`; a job without such a limit tells
        nobody. Raises ValueError for a pause that is below 0.
        """
        if pause_s < 0:
            raise ValueError(f"a pause has at least 0 seconds, not {pause_s}")
        meant = named_limits(self._attempt.assignment.options.limits, limit)
        if meant:
            self._post.tell([LimitSignal(one, left, round(pause_s * 1000)) for one in meant])

    @overload
    async def step(
        self, name: str, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def step(self, name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def step(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Do a part of the task once: `page = await ctx.step("fetch", fetch, url)`.

        What `fn` returns is kept in the job's log before this returns; when the job runs again, after a failure, a
        snooze or the death of its worker, it is taken from there, and `fn` is not called. It must be JSON, of 256 KiB
        at most, and comes back by the function's own return annotation. An exception is not kept. A plain function
        runs on a thread. A name is for one step of an attempt.

        If the worker dies between the call and the keeping, the step is repeated. Raises StepInvalid for a name or a
        result that cannot be, and what `fn` raises.
        """
        return await self._own_steps().run(name, fn, args, kwargs)

    def step_blocking(self, name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `step`, for blocking code: in its own thread."""
        result: T = self._own_steps().run_blocking(name, fn, args, kwargs)
        return result

    def _own_steps(self) -> Steps:
        if self._steps is None:
            self._steps = Steps(self._attempt, self._feed, self._threads, self._resuming)
        return self._steps

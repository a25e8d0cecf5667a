"""What a task is given to deal with other jobs, and to wait for somebody without holding a place."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, overload

import msgspec

from ropeway.client.handle import JobHandle
from ropeway.client.submitter import Submitter, TaskLike
from ropeway.client.sync_submitter import SyncJobHandle, SyncSubmitter
from ropeway.client.transport import Ending
from ropeway.domain.errors import ChildFailed, JobCancelled, JobFailed
from ropeway.domain.flow import HOLD_MS, Awaited
from ropeway.domain.lifecycle import State
from ropeway.runtime.attempt import Attempt, Snooze
from ropeway.runtime.composing.others import Others
from ropeway.runtime.feed import Feed
from ropeway.runtime.mailbox import PostOffice
from ropeway.runtime.snoozing import Snoozed
from ropeway.runtime.steps import Steps

__all__ = ["ComposingContext"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _Handle(Protocol):
    """A job in hand, blocking or not."""

    @property
    def id(self) -> str: ...

    def value_of(self, ending: Ending) -> Any: ...


class ComposingContext:
    """The part of a `Context` that is about other jobs, and about waiting.

    Its waits end the attempt: the job gives its place back, and when what it waits for is there, its task begins from
    the start, finds its steps, its children and its inputs as it left them, and comes past the wait.
    """

    __slots__ = ("_attempt", "_feed", "_gathered", "_others", "_post", "_steps", "_waited")

    def __init__(self, attempt: Attempt, feed: Feed, others: Others, post: PostOffice) -> None:
        self._attempt = attempt
        self._feed = feed
        self._others = others
        self._post = post
        self._steps: Steps | None = None
        self._waited = 0
        self._gathered: Counter[str] = Counter()

    @property
    def after(self) -> tuple[Awaited, ...]:
        """The jobs that this one waited for before it began, as they ended, in the order in which it names them."""
        return self._attempt.awaited

    @property
    def jobs(self) -> Submitter:
        """What submits children with options: `ctx.jobs.with_options(priority="high").submit(tile, path)`.

        As a client's; `submit_many` submits many at once. See `submit`. Blocking code has `jobs_blocking`.
        """
        return Submitter(self._others.children(self._attempt, self._feed))

    @property
    def jobs_blocking(self) -> SyncSubmitter:
        """As `jobs`, for blocking code; its handles block too."""
        return SyncSubmitter(self, self.jobs)

    @overload
    async def submit(self, task: TaskLike[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    @overload
    async def submit(self, task: str, /, **fields: Any) -> JobHandle[Any]: ...
    async def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Submit another job, a child of this one. As a client's `submit`, whose errors it raises.

            tiles = [await ctx.submit(tile, path) for path in paths]
            return merge(await ctx.gather(*tiles))

        An attempt that is repeated gets the children that the one before submitted. When this job is cancelled, or
        fails for good, its children that have not ended are cancelled; when it succeeds, they go on. A job has 10,000
        children at the most (StepInvalid).
        """
        return await self.jobs.submit(task, *args, **kwargs)

    @overload
    def submit_blocking(self, task: TaskLike[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SyncJobHandle[R]: ...
    @overload
    def submit_blocking(self, task: str, /, **fields: Any) -> SyncJobHandle[Any]: ...
    def submit_blocking(self, task: Any, /, *args: Any, **kwargs: Any) -> SyncJobHandle[Any]:
        """As `submit`, for blocking code."""
        handle: SyncJobHandle[Any] = self.jobs_blocking.submit(task, *args, **kwargs)
        return handle

    @overload
    async def gather(self, *jobs: JobHandle[R], return_exceptions: Literal[False] = False) -> list[R]: ...
    @overload
    async def gather(self, *jobs: JobHandle[R], return_exceptions: bool) -> list[R | JobFailed | JobCancelled]: ...
    async def gather(self, *jobs: JobHandle[Any], return_exceptions: bool = False) -> list[Any]:
        """What these jobs came to, in their order. While one has not ended, this ends the attempt, and holds no place.

        Raises ChildFailed as soon as one did not succeed, which fails this job unless it is caught; with
        `return_exceptions`, waits for all of them, and JobFailed or JobCancelled stand in their places. They may be any
        jobs of the tenant. A few whose results come at once are as well awaited where they are: `await job.result()`.
        """
        return await self._gather(jobs, return_exceptions)

    @overload
    def gather_blocking(self, *jobs: SyncJobHandle[R], return_exceptions: Literal[False] = False) -> list[R]: ...
    @overload
    def gather_blocking(
        self, *jobs: SyncJobHandle[R], return_exceptions: bool
    ) -> list[R | JobFailed | JobCancelled]: ...
    def gather_blocking(self, *jobs: SyncJobHandle[Any], return_exceptions: bool = False) -> list[Any]:
        """As `gather`, for blocking code."""
        return self.run(self._gather(jobs, return_exceptions))

    async def _gather(self, jobs: Sequence[_Handle], return_exceptions: bool) -> list[Any]:
        """What succeeded as a whole is kept as a step: a later attempt needs its jobs no more."""
        if not jobs:
            return []
        if return_exceptions:
            ended = await self._others.ended(self._attempt, self._feed, [job.id for job in jobs], False)
            return [_outcome(job, ending) for job, ending in zip(jobs, ended, strict=True)]
        outputs = await self._own_steps().remember(self._name_of(jobs), lambda: self._outputs(jobs))
        endings = (Ending(job.id, State.succeeded, output) for job, output in zip(jobs, outputs, strict=True))
        return [job.value_of(ending) for job, ending in zip(jobs, endings, strict=True)]

    async def _outputs(self, jobs: Sequence[_Handle]) -> list[msgspec.Raw]:
        ended = await self._others.ended(self._attempt, self._feed, [job.id for job in jobs], True)
        lost = next((ending for ending in ended if ending.state is not State.succeeded), None)
        if lost is not None:
            raise ChildFailed(lost.id, lost.error)
        return [ending.output for ending in ended]

    def _name_of(self, jobs: Sequence[_Handle]) -> str:
        """The same for these jobs in every attempt, and another when they are gathered once more."""
        digest = hashlib.blake2b(" ".join(job.id for job in jobs).encode(), digest_size=8).hexdigest()
        self._gathered[digest] += 1
        return f"gather {digest}" if self._gathered[digest] == 1 else f"gather {digest} {self._gathered[digest]}"

    async def wait_input(self, timeout_s: float | None = None) -> Any:
        """The next input, as `input`; but while none is there this ends the attempt, and holds no place.

            draft = await ctx.step("draft", write, topic)
            verdict = await ctx.wait_input(timeout_s=7 * 86_400)      # a person says yes or no, perhaps tomorrow

        The job is run again when it is sent an input; those that were read before are given again, in their order.
        Raises TimeoutError when none has come within `timeout_s` seconds of the first time that this wait was reached.
        """
        self._waited += 1
        given = await self._post.mailbox(self._attempt).take_now()
        if given:
            return given[0]
        hold_ms = HOLD_MS if timeout_s is None else await self._left_ms(timeout_s)
        if hold_ms <= 0:
            raise TimeoutError
        self._feed.check_open()
        self._attempt.snooze = Snooze(hold_ms, "waits for an input")
        raise Snoozed

    def wait_input_blocking(self, timeout_s: float | None = None) -> Any:
        """As `wait_input`, for blocking code."""
        return self.run(self.wait_input(timeout_s))

    async def _left_ms(self, timeout_s: float) -> int:
        """How long this wait may still last: its end is kept as a step."""
        now_ms = self._feed.clock.now_ms()

        async def until_ms() -> int:
            return now_ms + round(timeout_s * 1000)

        return int(await self._own_steps().run(f"wait_input {self._waited}", until_ms, (), {})) - now_ms

    def _own_steps(self) -> Steps:
        raise NotImplementedError

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives, from the worker's loop: for blocking code, which waits for it."""
        if self._feed.is_here:
            work.close()
            raise RuntimeError("this is for blocking code: an async task awaits the plain form of it")
        try:
            return asyncio.run_coroutine_threadsafe(work, self._feed.loop).result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError(self._attempt.reason) from None


def _outcome(job: _Handle, ending: Ending) -> Any:
    try:
        return job.value_of(ending)
    except (JobFailed, JobCancelled) as error:
        return error

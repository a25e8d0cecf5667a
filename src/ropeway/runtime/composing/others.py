"""What the attempts of one worker have to do with other jobs: those that they wait for, and those that they submit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from ropeway.blobs import Files
from ropeway.client.local_files import LocalFiles
from ropeway.client.transport import Ending, Transport
from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable, JobError
from ropeway.domain.flow import HOLD_MS, Standing, awaited_ids, awaited_of, lost_with, standing_of, with_outputs
from ropeway.domain.ids import RandomBytes
from ropeway.domain.job import Job, JobOptions
from ropeway.domain.lease import Assignment
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine
from ropeway.engines.waits import Wait, Waits
from ropeway.runtime.attempt import Attempt, Reason, Snooze
from ropeway.runtime.composing.children import Children
from ropeway.runtime.feed import Feed
from ropeway.runtime.patience import Jitter, Patience
from ropeway.runtime.resuming import Resuming
from ropeway.runtime.snoozing import Snoozed
from ropeway.runtime.steps import Steps, Threads
from ropeway.runtime.verdict import Told, Verdict, plain_error

__all__ = ["Others"]

T = TypeVar("T")

ALL = JobOptions(after_failure="fail")
ANY_END = JobOptions(after_failure="run")

_GONE = JobError("job_gone", "it has ended, and is past its retention")


class Others:
    """One for a worker."""

    def __init__(
        self,
        engine: Engine,
        files: Files | None,
        threads: Threads,
        resuming: Resuming,
        clock: Clock,
        random: RandomBytes,
        jitter: Jitter,
    ) -> None:
        self._engine = engine
        self._files = files
        self._threads = threads
        self._resuming = resuming
        self._clock = clock
        self._random = random
        self._jitter = jitter
        self._waits = Waits(engine)

    # -- before an attempt begins

    def wants(self, assignment: Assignment) -> bool:
        """Whether other jobs must be looked at first."""
        options = assignment.options
        return bool(options.after) or options.parent is not None

    async def bring(self, attempt: Attempt) -> None:
        """See that the attempt may begin, and put the outputs that it waited for into its input.

        Raises Snoozed while they are not there, Told when they never will be, CancelledError when its parent has ended
        otherwise than well.
        """
        options = attempt.assignment.options
        if options.parent is not None:
            await self._ask_parent(attempt, options.parent)
        if options.after:
            await self._fetch(attempt)

    async def _ask_parent(self, attempt: Attempt, parent: str) -> None:
        assignment = attempt.assignment
        (job,) = await self._jobs(attempt, [parent])
        if job is None or not job.state.terminal or job.state is State.succeeded:
            return
        cancelled = [assignment.job_id]
        await self._patiently(attempt, lambda: self._engine.cancel(assignment.tenant, cancelled, lost_with(job)))
        attempt.reason = attempt.reason or Reason.cancel
        raise asyncio.CancelledError(attempt.reason)

    async def _fetch(self, attempt: Attempt) -> None:
        assignment = attempt.assignment
        options = assignment.options
        ids = awaited_ids(options, assignment.input)
        jobs = await self._jobs(attempt, ids)
        standing, which = standing_of(options, jobs)
        if standing is Standing.waits:
            await self._wait(attempt, ids, options.after_failure == "fail", f"waits for {ids[which]}")
        if standing is Standing.hopeless:
            raise Told(Verdict(plain_error("dependency_failed", _lost(ids[which], jobs[which]), retryable=False), True))
        attempt.awaited = tuple(map(awaited_of, ids, [await self._whole(job) for job in jobs]))
        outputs = {one.id: one.output for one in attempt.awaited}
        attempt.assignment = msgspec.structs.replace(assignment, input=with_outputs(assignment.input, outputs))

    async def _whole(self, job: Job | None) -> Job | None:
        """A job with its output as its task made it: what was too large for the row is read from its file."""
        if job is None or job.state is not State.succeeded or job.output is None:
            return job
        files = LocalFiles(self._files, job.tenant)
        return msgspec.structs.replace(job, output=await files.output(job.output))

    # -- while it runs

    def children(self, attempt: Attempt, feed: Feed) -> Transport:
        """What the attempt submits children over, the same whenever it is asked for."""
        return self._children(attempt, feed)

    def _children(self, attempt: Attempt, feed: Feed) -> Children:
        if attempt.children is None:
            steps = Steps(attempt, feed, self._threads, self._resuming)
            store = None if self._files is None else self._files.store
            attempt.children = Children(
                self._engine, attempt, steps, self._waits, clock=self._clock, random=self._random, blobs=store
            )
        assert isinstance(attempt.children, Children)
        return attempt.children

    async def ended(self, attempt: Attempt, feed: Feed, job_ids: Sequence[str], needs_all: bool) -> list[Ending]:
        """How these jobs ended; those that are gone have failed.

        Raises Snoozed while one has not, unless it `needs_all` and one is lost already: then of those that have.
        """
        jobs = await self._jobs(attempt, job_ids)
        if standing_of(ALL if needs_all else ANY_END, jobs)[0] is Standing.waits:
            left = sum(job is not None and not job.state.terminal for job in jobs)
            await self._wait(attempt, job_ids, needs_all, f"waits for {left} of {len(jobs)} jobs")
        children = self._children(attempt, feed)
        found = zip(job_ids, jobs, strict=True)
        return [
            Ending(job_id, State.failed, error=_GONE) if job is None else await children.ending_of(job)
            for job_id, job in found
            if job is None or job.state.terminal
        ]

    async def _wait(self, attempt: Attempt, job_ids: Sequence[str], needs_all: bool, detail: str) -> None:
        """Note what the attempt waits for, and end it. Raises Snoozed."""
        assignment = attempt.assignment
        wait = Wait(assignment.job_id, assignment.tenant, tuple(job_ids), needs_all)
        await self._patiently(attempt, lambda: self._waits.expect([wait], self._clock.now_ms()))
        await self._waits.tell()
        attempt.snooze = Snooze(HOLD_MS, detail)
        raise Snoozed

    async def _jobs(self, attempt: Attempt, job_ids: Sequence[str]) -> list[Job | None]:
        return await self._patiently(attempt, lambda: self._engine.get(attempt.assignment.tenant, job_ids))

    async def _patiently(self, attempt: Attempt, call: Callable[[], Awaitable[T]]) -> T:
        """What the engine says, when it is there. Raises CancelledError when the attempt is to stop meanwhile."""
        patience = Patience(self._jitter)
        while attempt.reason is None and not attempt.lost:
            try:
                return await call()
            except EngineUnavailable:
                await patience.wait()
        raise asyncio.CancelledError(attempt.reason)


def _lost(job_id: str, job: Job | None) -> str:
    if job is None:
        return f"{job_id}, which this job waited for, is gone"
    return f"{job_id} ({job.task}), which this job waited for, {_ended(job)}"


def _ended(job: Job) -> str:
    if job.error is None:
        return f"was {job.state}"
    error: dict[str, Any] = msgspec.json.decode(job.error)
    return f"failed: {error['code']}: {error['message']}"

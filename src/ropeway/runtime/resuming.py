"""What earlier attempts of a job made, read back from its log: output to go on from, and the steps that are done."""

from __future__ import annotations

import asyncio

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.event import START, Cursor
from ropeway.domain.log import EventPage
from ropeway.domain.output import Made
from ropeway.engines.base import Reading
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.patience import Jitter, Patience

__all__ = ["Resuming"]

PAGE = 1_000


class Resuming:
    """Reads for the attempts of one worker. Nothing is asked of the engine for a job's first run."""

    def __init__(self, engine: Reading, jitter: Jitter) -> None:
        self._engine = engine
        self._jitter = jitter

    def wants(self, attempt: Attempt) -> bool:
        """Whether the attempt goes on from the output of an earlier one."""
        return attempt.assignment.options.resumable and attempt.runs_again

    async def earlier(self, attempt: Attempt) -> Made:
        """What the attempts before this one made. In the loop.

        Raises CancelledError when the attempt is asked to stop while the engine does not answer.
        """
        if attempt.earlier is None:
            attempt.earlier = await self._read(attempt) if attempt.runs_again else Made()
        return attempt.earlier

    async def _read(self, attempt: Attempt) -> Made:
        made = Made()
        after: Cursor = START
        own = attempt.assignment.lease.epoch
        while (page := await self._page(attempt, after)) is not None and page.events:
            theirs = [event for event in page.events if event.cursor.epoch < own]
            made.add(theirs)
            if len(theirs) < len(page.events):
                break
            after = page.events[-1].cursor
        return made

    async def _page(self, attempt: Attempt, after: Cursor) -> EventPage | None:
        assignment = attempt.assignment
        patience = Patience(self._jitter)
        while attempt.reason is None and not attempt.lost:
            try:
                return await self._engine.read(assignment.tenant, assignment.job_id, after, PAGE)
            except EngineUnavailable:
                await patience.wait()
        raise asyncio.CancelledError(attempt.reason)

"""Jobs that wait for others, as they are submitted: on hold, and noted for whoever wakes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.flow import AFTER_LIMIT, HOLD_MS, Standing, awaited_ids, standing_of
from ropeway.domain.job import Job, NewJob
from ropeway.engines.waits import Store, Wait, Waits

__all__ = ["Holding"]


class _Engine(Store, Protocol):
    async def get(self, tenant: str, job_ids: Sequence[str]) -> list[Job | None]: ...


class Holding:
    """Puts jobs on hold. One for an engine."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._waits = Waits(engine)

    async def held(self, new: NewJob, now_ms: int) -> NewJob:
        """The job as it is to be submitted: it begins when those before it have ended. Then `submitted`.

        Raises InvalidRequest: one of them is not there, or not this tenant's; more than 1,000; a delay beside.
        """
        ids = awaited_ids(new.options, new.input)
        if not ids:
            return new
        if len(ids) > AFTER_LIMIT:
            raise InvalidRequest(f"a job waits for {AFTER_LIMIT:,} others at the most, not {len(ids):,}", param="after")
        if new.delay_ms:
            raise InvalidRequest("a job that waits for others begins when they have ended: no delay", param="delay")
        options = msgspec.structs.replace(new.options, after=ids)
        jobs = await self._engine.get(new.tenant, ids)
        missing = next((job_id for job_id, job in zip(ids, jobs, strict=True) if job is None), None)
        if missing is not None:
            raise InvalidRequest(f"there is no job {missing[:80]!r} to wait for", param="after")
        if standing_of(options, jobs)[0] is not Standing.waits:  # its attempt finds out how they ended
            return msgspec.structs.replace(new, options=options)
        wait = Wait(new.id, new.tenant, ids, options.after_failure == "fail")
        await self._waits.expect([wait], now_ms)
        return msgspec.structs.replace(new, options=options, delay_ms=HOLD_MS)

    async def submitted(self, jobs: Sequence[NewJob]) -> None:
        """These are stored: whoever wakes is told of those on hold."""
        if any(job.delay_ms == HOLD_MS for job in jobs):
            await self._waits.tell()

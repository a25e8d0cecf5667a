"""Jobs that wait for others, as they are submitted: on hold, and noted for whoever wakes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from ropeway.domain.errors import InvalidRequest, RopewayError
from ropeway.domain.flow import AFTER_LIMIT, HOLD_MS, Standing, awaited_ids, standing_of
from ropeway.domain.job import Job, NewJob, Receipt
from ropeway.engines.waits import Store, Wait, Waits

__all__ = ["Holding", "Storing"]


Storing = Callable[[Sequence[NewJob]], Awaitable[Sequence[Receipt | RopewayError]]]


class _Engine(Store, Protocol):
    async def get(self, tenant: str, job_ids: Sequence[str]) -> list[Job | None]: ...


class Holding:
    """Puts jobs on hold. One for an engine."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._waits = Waits(engine)

    async def submit(self, jobs: Sequence[NewJob], now_ms: int, store: Storing) -> list[Receipt | RopewayError]:
        """Store one tenant's jobs, by `store`; those that wait for others begin when these have ended.

        A refusal stands in its job's place: `store`'s own; or InvalidRequest, for a job to wait for that is not there
        or not this tenant's, more than 1,000 of them, a delay beside.
        """
        if not jobs:
            return []
        wanted = [awaited_ids(job.options, job.input) for job in jobs]
        if not any(wanted):
            return list(await store(jobs))
        held = await self._held(jobs, wanted, now_ms)
        answers = iter(await store([job for job in held if isinstance(job, NewJob)]))
        await self._waits.tell()
        return [next(answers) if isinstance(job, NewJob) else job for job in held]

    async def _held(
        self, jobs: Sequence[NewJob], wanted: Sequence[tuple[str, ...]], now_ms: int
    ) -> list[NewJob | InvalidRequest]:
        """Each as it is to be stored, or why it cannot be. Those on hold are noted."""
        every = list(dict.fromkeys(job_id for ids in wanted if len(ids) <= AFTER_LIMIT for job_id in ids))
        known = dict(zip(every, await self._engine.get(jobs[0].tenant, every), strict=True)) if every else {}
        held = [_held(job, ids, known) if ids else job for job, ids in zip(jobs, wanted, strict=True)]
        waits = [_wait(job) for job in held if isinstance(job, NewJob) and job.options.after and job.delay_ms]
        if waits:
            await self._waits.expect(waits, now_ms)
        return held


def _held(new: NewJob, ids: tuple[str, ...], known: Mapping[str, Job | None]) -> NewJob | InvalidRequest:
    if len(ids) > AFTER_LIMIT:
        return InvalidRequest(f"a job waits for {AFTER_LIMIT:,} others at the most, not {len(ids):,}", param="after")
    if new.delay_ms:
        return InvalidRequest("a job that waits for others begins when they have ended: no delay", param="delay")
    jobs = [known[job_id] for job_id in ids]
    missing = next((job_id for job_id, job in zip(ids, jobs, strict=True) if job is None), None)
    if missing is not None:
        return InvalidRequest(f"there is no job {missing[:80]!r} to wait for", param="after")
    options = msgspec.structs.replace(new.options, after=ids)
    waits = standing_of(options, jobs)[0] is Standing.waits  # otherwise its attempt finds out how they ended
    return msgspec.structs.replace(new, options=options, delay_ms=HOLD_MS if waits else 0)


def _wait(held: NewJob) -> Wait:
    return Wait(held.id, held.tenant, held.options.after, held.options.after_failure == "fail")

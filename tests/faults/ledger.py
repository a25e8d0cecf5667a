"""What the store of a fault test holds in the end."""

from __future__ import annotations

import asyncio

from verdict import Final

from ropeway.domain.event import START, Event
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.engines.base import Engine

__all__ = ["HEAL_S", "drained", "finals", "log_of"]

HEAL_S = 120.0
BATCH = 100


async def drained(engine: Engine) -> int:
    """Wait until every job has ended; how many there are."""
    with engine.listen("lifecycle") as hints:
        async with asyncio.timeout(HEAL_S):
            while True:
                stats = await engine.stats()
                if not sum(queue.waiting + queue.running for queue in stats):
                    return sum(queue.succeeded + queue.failed + queue.cancelled for queue in stats)
                await hints.wait(1.0)


async def finals(engine: Engine, job_ids: list[str]) -> dict[str, Final]:
    """The jobs as they stand, each with its log as read from the start."""
    found: dict[str, Final] = {}
    for start in range(0, len(job_ids), BATCH):
        jobs = await engine.get(DEFAULT_TENANT, job_ids[start : start + BATCH])
        for job in jobs:
            if job is not None:
                found[job.id] = Final(job, await log_of(engine, job.id))
    return found


async def log_of(engine: Engine, job_id: str) -> list[Event]:
    log: list[Event] = []
    while True:
        page = await engine.read(DEFAULT_TENANT, job_id, log[-1].cursor if log else START, 100)
        assert page is not None
        log += page.events
        if page.ended or not page.events:
            return log

"""Waiting for a job on behalf of a request that stays open: by hints, never by polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ropeway.domain.caller import Caller
from ropeway.domain.errors import Unauthenticated
from ropeway.domain.job import Job
from ropeway.serving.parts import Parts
from ropeway.serving.replies import Receive

__all__ = ["has_ended", "until"]


def has_ended(job: Job) -> bool:
    return job.state.terminal


async def until(
    parts: Parts, receive: Receive, caller: Caller, job_id: str, wait_s: float, enough: Callable[[Job], bool]
) -> Job:
    """The job as soon as it is `enough`, else as it stands after `wait_s` seconds, or when the gateway drains.

    Ends at once when the client leaves. It listens before it reads, so that no hint falls between the two, and looks
    again now and then all the same, since a hint may be lost. Raises Unauthenticated when the caller's key ends
    meanwhile, RateLimited when the caller has as many streams and waits open as it may.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + wait_s
    topic = f"end:{job_id}" if enough is has_ended else f"job:{job_id}"
    with parts.watches.open(caller, receive, topic) as watch:
        while True:
            job = await parts.job(caller.tenant, job_id)
            left_s = deadline_s - loop.time()
            if watch.expelled:
                raise Unauthenticated("the key was revoked, or has expired, while this waited")
            if enough(job) or left_s <= 0 or watch.over:
                return job
            await watch.wait(min(left_s, parts.options.recheck_s))

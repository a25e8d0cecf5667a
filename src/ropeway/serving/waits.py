"""Waiting for a job on behalf of a request that stays open: by hints, never by polling."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ropeway.domain.caller import Caller
from ropeway.domain.errors import Unauthenticated
from ropeway.domain.job import Job
from ropeway.engines.hints import tell_unhinted
from ropeway.serving.parts import Parts
from ropeway.serving.replies import Receive
from ropeway.serving.watches import Watch

__all__ = ["has_ended", "tell_end", "until"]

_log = logging.getLogger("ropeway.serving")


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
                tell_end(parts, watch, job)
                return job
            await watch.wait(min(left_s, parts.options.recheck_s))


def tell_end(parts: Parts, watch: Watch, job: Job) -> None:
    """Log a job's end of which no hint told this wait, if it was so."""
    if job.finished_at_ms is not None and not watch.hinted:
        late_ms = parts.clock.now_ms() - job.finished_at_ms
        tell_unhinted(_log, f"end:{job.id}", f"its end ({job.state})", late_ms)

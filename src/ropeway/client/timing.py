"""A submit that is to run at an instant: as a delay, which is what an engine knows."""

from __future__ import annotations

import msgspec

from ropeway.client.wire import JobRequest
from ropeway.domain.clock import Clock
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.firing import instant_ms

__all__ = ["timed"]

YEAR_MS = 366 * 86_400_000


def timed(request: JobRequest, clock: Clock) -> JobRequest:
    """The request with its `run_at` as a delay from now; one that has passed is no delay. Raises InvalidRequest."""
    if request.run_at is None:
        return request
    if request.delay:
        raise InvalidRequest("a job has either `delay` or `run_at`", param="run_at")
    wait_ms = instant_ms(request.run_at, None, "run_at") - clock.now_ms()
    if wait_ms > YEAR_MS:
        raise InvalidRequest("run_at is at most 366 days ahead", param="run_at")
    return msgspec.structs.replace(request, delay=max(wait_ms, 0) / 1000, run_at=None)

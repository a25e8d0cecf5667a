"""What went wrong as a problem, with when to try again: the same on a route and on a socket."""

from __future__ import annotations

from ropeway.domain.errors import EngineUnavailable, QueueFull, RopewayError, TooManyQueued
from ropeway.serving.problems import Problem, TooManyStreams, problem_of
from ropeway.serving.rates import Rates

__all__ = ["refused"]

_AGAIN_S = ((EngineUnavailable, 1.0), (TooManyStreams, 5.0))  # told when nothing better is known


def refused(error: RopewayError, rates: Rates) -> tuple[Problem, float | None]:
    """The problem, and in how many seconds to ask again where there is a point in that."""
    if isinstance(error, QueueFull | TooManyQueued):
        after_s = rates.retry_after_s(error.queue, error.depth)
        return problem_of(error, f"{error.detail} (about {after_s:.0f} s)"), after_s
    if error.retry_after_s is not None:
        return problem_of(error), error.retry_after_s
    return problem_of(error), next((wait_s for kind, wait_s in _AGAIN_S if isinstance(error, kind)), None)

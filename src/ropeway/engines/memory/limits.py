"""Limits of the memory engine: each key's state, and the jobs that are parked under it."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator

import msgspec

from ropeway.domain.job import Job
from ropeway.domain.limit import (
    CALL_AGAIN_MS,
    CALLED_AT_ONCE,
    FOR_A_SLOT,
    Limit,
    LimitPolicy,
    LimitSignal,
    LimitState,
    finished,
    signalled,
    started,
    taken_by,
    wait_ms,
)

__all__ = ["Limits", "Place"]

Place = tuple[float, int, str]
"""A job's place: rank, number, id."""


class Limits:
    """`job_of` finds the job of an id, `back` puts one back into its line, `tell` says that a key waits for a time.

    What became free in one operation is offered once, by `call_freed`: else each of many ends would call as many as all
    of them together.
    """

    def __init__(
        self, job_of: Callable[[str], Job], back: Callable[[Job, int], None], tell: Callable[[], None]
    ) -> None:
        self._job_of = job_of
        self._back = back
        self._tell = tell
        self._states: dict[str, LimitState] = {}
        self._parked: dict[str, list[Place]] = {}
        self._due: dict[str, int] = {}  # when to look at a key's parked jobs again
        self._freed: dict[str, None] = {}  # the keys under which something became free, in order

    def blocking(self, job: Job, place: Place, now_ms: int) -> str | None:
        """The key of the first limit that the job does not fit, with when to look again; None when it may start."""
        for limit in job.options.limits:
            wait = wait_ms(limit, self._state(limit.key), now_ms)
            if wait is not None:
                self._look(limit.key, wait)
                return limit.key
            if (parked := self._parked.get(limit.key)) and parked[0] < place:
                return limit.key
        return None

    def park(self, key: str, place: Place) -> None:
        insort(self._parked.setdefault(key, []), place)

    def start(self, job: Job, now_ms: int) -> None:
        """The job starts, and takes of every limit."""
        for limit in job.options.limits:
            self._keep(started(limit, self._state(limit.key), now_ms))

    def finish(self, job: Job, outcome: str, usage: str | None, now_ms: int) -> None:
        """An attempt of the job ended."""
        for limit in job.options.limits:
            took = taken_by(limit, outcome, usage)
            self._keep(finished(limit, self._state(limit.key), now_ms, took))
            self._freed[limit.key] = None

    def leave(self, job: Job, place: Place) -> None:
        """A parked job does not wait any more."""
        key = job.parked
        if key is not None and (parked := self._parked.get(key)) and place in parked:
            parked.remove(place)
            self._freed[key] = None

    def call_freed(self, now_ms: int) -> None:
        """Call back who fits now, under the keys of which attempts ended or parked jobs went."""
        freed, self._freed = self._freed, {}
        for key in freed:
            self._call(key, now_ms)

    def set(self, key: str, policy: LimitPolicy | None, now_ms: int) -> LimitState:
        self._keep(msgspec.structs.replace(self._state(key), policy=policy))
        self._call(key, now_ms)
        return self.state(key)

    def signal(self, signal: LimitSignal, now_ms: int) -> None:
        self._keep(signalled(signal, self._state(signal.limit.key), now_ms))

    def due_ms(self) -> int | None:
        """When parked jobs are to be looked at again."""
        return min(self._due.values(), default=None)

    def call_due(self, now_ms: int) -> int:
        """Call back who fits now, under the keys whose time has come. How many."""
        due = [key for key, at_ms in self._due.items() if at_ms <= now_ms]
        return sum(self._call(key, now_ms) for key in due)

    def ahead_of(self, key: str, place: Place) -> int:
        """How many of those parked under a key go before this one."""
        return sum(other < place for other in self._parked.get(key, ()))

    def state(self, key: str) -> LimitState:
        return msgspec.structs.replace(self._state(key), parked=len(self._parked.get(key, ())))

    def states(self) -> Iterator[LimitState]:
        for key in sorted({*self._states, *(key for key, parked in self._parked.items() if parked)}):
            yield self.state(key)

    def forget_idle(self, now_ms: int) -> None:
        """Drop the keys of which nothing need be remembered: a bucket without its numbers is kept a day."""
        for key, state in tuple(self._states.items()):
            if not self._parked.get(key):
                self._parked.pop(key, None)
                self._due.pop(key, None)
                refilled = state.level is None or now_ms - state.at_ms > 86_400_000
                if refilled and not state.running and state.policy is None and state.paused_until_ms <= now_ms:
                    del self._states[key]

    def _call(self, key: str, now_ms: int) -> int:
        """Put those of the parked back into their lines who would fit, the best-ranked first."""
        parked, state, called = self._parked.get(key, []), self._state(key), 0
        self._due.pop(key, None)
        while parked:
            job = self._job_of(parked[0][2])
            limit = _of(job, key)
            wait = wait_ms(limit, state, now_ms)
            if wait is not None or called == CALLED_AT_ONCE:
                self._look(key, now_ms if wait is None else wait)
                break
            parked.pop(0)
            state = started(limit, state, now_ms)
            self._back(job, now_ms)
            called += 1
        if parked and called:
            self._look(key, now_ms + CALL_AGAIN_MS)
        return called

    def _look(self, key: str, at_ms: int) -> None:
        if at_ms != FOR_A_SLOT and at_ms < self._due.get(key, at_ms + 1):
            self._due[key] = at_ms
            self._tell()

    def _state(self, key: str) -> LimitState:
        return self._states.get(key) or LimitState(key)

    def _keep(self, state: LimitState) -> None:
        if state == LimitState(state.key):
            self._states.pop(state.key, None)
        else:
            self._states[state.key] = state


def _of(job: Job, key: str) -> Limit:
    return next(limit for limit in job.options.limits if limit.key == key)

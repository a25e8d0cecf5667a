"""Which jobs a call is made for, and made again for when it fails: halves, until it is known whom it fails for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from ropeway.domain.errors import InputInvalid, RetryAfter
from ropeway.runtime.coding import OutputInvalid

__all__ = ["CALLS_PER_HALVING", "Parts"]

J = TypeVar("J")

CALLS_PER_HALVING = 4  # one culprit takes 2 calls at each of log2(n) halvings; with many, it is nobody's in particular

_NOT_OF_ONE_JOB = (RetryAfter, InputInvalid, OutputInvalid, asyncio.CancelledError)
"""What is true of the whole call, and no better for a half of it."""


class Parts(Generic[J]):
    """The jobs of one call. `may_run` tells whether a job is still to be run at all.

    A call that fails is made again for either half of its jobs, and so on: log2(n) halvings find the one that it fails
    for. A failure that is everybody's is not chased for ever: after `CALLS_PER_HALVING` further calls for each
    halving, who is left fails with what the last call raised.
    """

    def __init__(self, jobs: list[J], may_run: Callable[[J], bool], *, split: bool) -> None:
        self.splits = 0
        self._stack = [jobs]
        self._may_run = may_run
        self._split = split
        self._calls_left = CALLS_PER_HALVING * max(len(jobs) - 1, 0).bit_length()

    def take(self) -> list[J]:
        """The jobs to make the next call for; empty when there is none to make."""
        while self._stack:
            part = [job for job in self._stack.pop() if self._may_run(job)]
            if part:
                return part
        return []

    @property
    def pending(self) -> bool:
        """Whether there may be another call to make."""
        return bool(self._stack)

    def put_back(self, jobs: list[J]) -> None:
        """These are to be run again, together: the call ended for a reason that was not theirs."""
        if jobs:
            self._stack.append(jobs)

    def failed(self, part: list[J], error: BaseException, again: list[J]) -> list[J]:
        """The call for `part` raised this: those of them that have failed by it. The others of `again` run once more.

        Args:
            again: those that may be run again without harm.
        """
        if not again or not self._may_split(part, error):
            return part
        self._calls_left -= 2
        self.splits += 1
        middle = (len(again) + 1) // 2
        self._stack += [half for half in (again[middle:], again[:middle]) if half]
        return [job for job in part if job not in again]

    def _may_split(self, part: list[J], error: BaseException) -> bool:
        return (
            self._split
            and len(part) > 1
            and self._calls_left >= 2
            and isinstance(error, Exception)
            and not isinstance(error, _NOT_OF_ONE_JOB)
        )

"""What one task's batches came to in one worker."""

from __future__ import annotations

from collections import Counter

from ropeway.runtime.batching.waiting import Closing
from ropeway.runtime.options import BatchSnapshot

__all__ = ["Counts"]


class Counts:
    """Counted up in the loop, read from any thread. `splits`: calls that failed and were made again for halves."""

    def __init__(self) -> None:
        self.splits = 0
        self._jobs = 0
        self._largest = 0
        self._closed: Counter[str] = Counter()

    def began(self, why: Closing, size: int) -> None:
        """A batch of so many jobs was closed, for this reason."""
        self._jobs += size
        self._largest = max(self._largest, size)
        self._closed[why.value] += 1

    def snapshot(self, waiting: int, running: int) -> BatchSnapshot:
        """All of it, with the jobs that wait and the calls that run at this moment."""
        closed = dict(self._closed)
        return BatchSnapshot(
            batches=sum(closed.values()),
            jobs=self._jobs,
            largest=self._largest,
            closed=closed,
            splits=self.splits,
            waiting=waiting,
            running=running,
        )

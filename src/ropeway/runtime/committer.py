"""Commits the outcomes of all of a worker's attempts, many in one call, until the engine has acknowledged each."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

import msgspec

from ropeway.domain.errors import EngineUnavailable, JobError, LeaseLost
from ropeway.domain.lease import Commit, Outcome
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Execution
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.inbox import Wake
from ropeway.runtime.patience import Jitter, Patience

__all__ = ["COMMIT_BATCH", "Committer"]

log = logging.getLogger("ropeway.worker")

COMMIT_BATCH = 512  # past this a batch costs no less a job, and those in it wait longer


class Committer:
    """The one place that commits. One call is in flight at a time; what ends meanwhile goes with the next.

    `settled` is called when a batch is done with, and `ended` with each attempt that was its job's last. `counts` holds
    how many attempts came to which state; those that lost their lease are under `lost`.
    """

    def __init__(
        self,
        engine: Execution,
        jitter: Jitter,
        settled: Callable[[], None],
        ended: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._engine = engine
        self._jitter = jitter
        self._settled = settled
        self._ended = ended
        self._waiting: list[tuple[Attempt, Outcome]] = []
        self._flying = 0
        self._wake = Wake()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def backlog(self) -> int:
        """Outcomes that the engine has not acknowledged."""
        return len(self._waiting) + self._flying

    def add(self, attempt: Attempt, outcome: Outcome) -> None:
        """Commit this, sooner or later; unless its lease is lost."""
        self._waiting.append((attempt, outcome))
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._idle.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:COMMIT_BATCH], self._waiting[COMMIT_BATCH:]
                self._flying = len(batch)
                await self._commit(batch)
                self._flying = 0
                self._settled()
            self._idle.set()

    async def flushed(self) -> None:
        """Until everything is acknowledged, or given up."""
        while self.backlog:
            await self._idle.wait()
            await asyncio.sleep(0)

    async def _commit(self, batch: list[tuple[Attempt, Outcome]]) -> None:
        """Repeat until the engine answers: it knows a repeat of the holder's own commit and says again what came."""
        patience = Patience(self._jitter)
        while batch := [entry for entry in batch if self._is_ours(entry[0])]:
            try:
                answers = await self._engine.commit([Commit(a.assignment.lease, outcome) for a, outcome in batch])
            except EngineUnavailable:
                await patience.wait()
            except Exception as error:
                await self._isolate(batch, error)
                return
            else:
                for (attempt, _), answer in zip(batch, answers, strict=True):
                    self._settle(attempt, answer)
                return

    def _is_ours(self, attempt: Attempt) -> bool:
        if attempt.lost:
            self._settle(attempt, None)
            return False
        return True

    def _settle(self, attempt: Attempt, answer: State | LeaseLost | None) -> None:
        self.counts[answer.value if isinstance(answer, State) else "lost"] += 1
        attempt.forget()
        if isinstance(answer, State) and answer.terminal:
            self._ended(attempt)

    async def _isolate(self, batch: list[tuple[Attempt, Outcome]], error: Exception) -> None:
        """An outcome that the engine cannot take must not hold up the others: each goes alone, and it fails."""
        if len(batch) > 1:
            for entry in batch:
                await self._commit([entry])
            return
        attempt, outcome = batch[0]
        log.error("the engine refused the outcome of %s", attempt.assignment.job_id, exc_info=error)
        if outcome.kind == "failed":
            self._settle(attempt, None)
            return
        refused = JobError("output_invalid", f"the engine refused the outcome: {type(error).__name__}")
        await self._commit([(attempt, Outcome("failed", error=msgspec.json.encode(refused).decode()))])

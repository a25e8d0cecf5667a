"""Sends the events of all of a worker's attempts to the engine, many in one call, one call at a time."""

from __future__ import annotations

import asyncio
import logging

from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable, LeaseLost
from ropeway.domain.lease import Append, Appended
from ropeway.engines.base import Execution
from ropeway.runtime.attempt import Attempt, Reason
from ropeway.runtime.feed import Feed, Outlet
from ropeway.runtime.inbox import Inbox, Wake
from ropeway.runtime.patience import Jitter, Patience
from ropeway.runtime.stopping import Ask

__all__ = ["Writer"]

log = logging.getLogger("ropeway.worker")

PACE_S = 0.002  # between two calls: an engine that answers at once would get, and its readers see, one token at a time


class Writer:
    """The one place that appends. What comes first goes at once; what comes while a call is in flight, or within
    `PACE_S` after it, goes with the next."""

    def __init__(self, engine: Execution, inbox: Inbox, clock: Clock, ask: Ask, jitter: Jitter) -> None:
        self._engine = engine
        self._ask = ask
        self._jitter = jitter
        self._outlet = Outlet(self._enqueue, inbox, clock)
        self._ready: list[Feed] = []
        self._wake = Wake()

    def feed(self, attempt: Attempt) -> Feed:
        """A feed for an attempt that has something to tell."""
        return Feed(attempt, self._outlet)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            while self._ready:
                feeds, self._ready = self._ready, []
                await self._send([(feed, feed.take()) for feed in feeds])
                await asyncio.sleep(PACE_S)

    def _enqueue(self, feed: Feed) -> None:
        self._ready.append(feed)
        self._wake.set()

    async def _send(self, batch: list[tuple[Feed, Append]]) -> None:
        """Append, and repeat until the engine answers: a repeat with the same expected n writes nothing twice."""
        patience = Patience(self._jitter)
        while batch := [entry for entry in batch if self._is_ours(entry[0])]:
            try:
                answers = await self._engine.append([append for _, append in batch])
            except EngineUnavailable:
                await patience.wait()
            except Exception:
                await self._isolate(batch)
                return
            else:
                for (feed, _), answer in zip(batch, answers, strict=True):
                    self._hear(feed, answer)
                return

    def _is_ours(self, feed: Feed) -> bool:
        if feed.attempt.lost:
            feed.drop()
            return False
        return True

    def _hear(self, feed: Feed, answer: Appended | LeaseLost) -> None:
        if isinstance(answer, LeaseLost):
            self._ask(feed.attempt, Reason.lost)
            feed.drop()
            return
        feed.saved(answer.next_seq)
        if answer.cancel_requested:
            self._ask(feed.attempt, Reason.cancel)

    async def _isolate(self, batch: list[tuple[Feed, Append]]) -> None:
        """An append that the engine cannot take must not hold up the others: each goes alone, and it is given up."""
        if len(batch) > 1:
            for entry in batch:
                await self._send([entry])
            return
        feed, _ = batch[0]
        log.exception("the engine refused events of %s: the attempt is given up", feed.attempt.assignment.job_id)
        self._ask(feed.attempt, Reason.lost)
        feed.drop()

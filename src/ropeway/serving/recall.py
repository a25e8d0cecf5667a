"""Records that are asked for with every request: kept for less than a second, and asked for once for all who wait.

So a key that is revoked opens nothing on any gateway a second later, and a thousand requests a second cost the engine
two questions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ropeway.domain.clock import Clock
from ropeway.domain.record import Record, RecordKey
from ropeway.engines.records import Records

__all__ = ["FRESH_S", "ROOM", "RecordCache"]

FRESH_S = 0.5
ROOM = 10_000  # entries; ids that nobody has are remembered too, and a stranger can make up as many as he likes


class RecordCache:
    """Records by key, at most `FRESH_S` old; None for one that is not there."""

    def __init__(self, engine: Records, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._known: dict[RecordKey, tuple[Record | None, float]] = {}
        self._asked: dict[RecordKey, tuple[asyncio.Task[Record | None], float]] = {}

    async def get(self, key: RecordKey) -> Record | None:
        """The record. Raises EngineUnavailable: what is old is not served instead."""
        now_s = self._clock.monotonic_s()
        known = self._known.get(key)
        if known is not None and now_s - known[1] < FRESH_S:
            return known[0]
        asked = self._asked.get(key)
        if asked is None or now_s - asked[1] >= FRESH_S:  # a slow answer may tell of a time before this request's
            asked = self._asked[key] = (asyncio.ensure_future(self._ask(key)), now_s)
        return await asyncio.shield(asked[0])  # who leaves does not take the answer from the others

    async def look(self, keys: Sequence[RecordKey]) -> list[Record | None]:
        """The records as they are now, in one question; the cache learns of them."""
        asked_at_s = self._clock.monotonic_s()
        records = await self._engine.fetch(keys)
        for key, record in zip(keys, records, strict=True):
            self._remember(key, record, asked_at_s)
        return records

    async def _ask(self, key: RecordKey) -> Record | None:
        try:
            (record,) = await self.look([key])
        finally:
            if self._asked.get(key, (None,))[0] is asyncio.current_task():
                del self._asked[key]
        return record

    def _remember(self, key: RecordKey, record: Record | None, at_s: float) -> None:
        if self._known.pop(key, (None, at_s))[1] > at_s:
            return  # a later question was answered first: the next request asks again
        while len(self._known) >= ROOM:
            del self._known[next(iter(self._known))]  # the oldest
        self._known[key] = (record, at_s)

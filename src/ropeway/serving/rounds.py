"""Logs read in rounds: readers who ask at the same time are answered by the same call of the engine.

A thousand streams of twenty tokens a second would be twenty thousand reads and writes of one token each. So no reader
reads by itself. A round takes all who have asked since the last, reads their logs a few dozen at a time, and lets those
write what they got before it reads the next. In light traffic nobody waits for anything. A round that took long says
that the gateway is behind; then the next one comes only after a rest of the same length, and what happened meanwhile is
carried by one read and one write for each reader instead of several. The work falls, and a tenth of a second is added
at the most; without this the gateway would fall behind by more and more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ropeway.domain.event import Cursor
from ropeway.domain.log import EventPage, LogQuery
from ropeway.engines.base import Reading

__all__ = ["Rounds", "rest_s"]

READS_AT_ONCE = 32  # one call: more save little, and would hold up everything else in the loop
BUSY_S = 0.005  # a round of this length is no sign of load
MOST_REST_S = 0.1  # what a reader's eye does not see
SLOW_S = 0.05  # an engine that has not answered by then is waited for aside: one server of several may be away

Asked = tuple[LogQuery, asyncio.Future[EventPage | None]]


class Rounds:
    """Reads for all readers of one gateway."""

    def __init__(self, engine: Reading) -> None:
        self._engine = engine
        self._asked: list[Asked] = []
        self._going: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        """As the engine's `read`, a little later when many read."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[EventPage | None] = loop.create_future()
        self._asked.append((LogQuery(tenant, job_id, after, limit), answer))
        if self._going is None or self._going.done():
            self._going = loop.create_task(self._go())
        return await answer

    async def _go(self) -> None:
        """Round after round, while somebody asks."""
        loop = asyncio.get_running_loop()
        while self._asked:
            began_at_s = loop.time()
            asked, self._asked = self._asked, []
            for start in range(0, len(asked), READS_AT_ONCE):
                await self._call(asked[start : start + READS_AT_ONCE])
            await asyncio.sleep(rest_s(loop.time() - began_at_s))

    async def _call(self, asked: Sequence[Asked]) -> None:
        """Have these answered, and let them write before anybody else is."""
        call = asyncio.get_running_loop().create_task(self._answer(asked))
        await asyncio.sleep(0)
        if not call.done():
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            await asyncio.wait({call}, timeout=SLOW_S)
        await asyncio.sleep(0)

    async def _answer(self, asked: Sequence[Asked]) -> None:
        waiting = [one for one in asked if not one[1].done()]  # others have gone
        try:
            if len(waiting) == 1:
                _give(waiting[0], await self._engine.read(*waiting[0][0]))
            elif waiting:
                pages = await self._engine.read_many([query for query, _ in waiting])
                for one, page in zip(waiting, pages, strict=True):
                    _give(one, page)
        except Exception as error:
            await self._refuse(waiting, error)

    async def _refuse(self, asked: Sequence[Asked], error: Exception) -> None:
        """What failed for all together may be the trouble of one, or of one server of several."""
        if len(asked) > 1:
            await asyncio.gather(*(self._answer([one]) for one in asked))
        elif not asked[0][1].done():
            asked[0][1].set_exception(error)


def rest_s(took_s: float) -> float:
    """How long to rest after a round that took so long: not at all as a rule, under load as long again."""
    return 0.0 if took_s <= BUSY_S else min(took_s, MOST_REST_S)


def _give(one: Asked, page: EventPage | None) -> None:
    if not one[1].done():
        one[1].set_result(page)

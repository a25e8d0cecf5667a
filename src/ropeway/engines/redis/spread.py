"""Which partition, or partitions, hold what a call is about."""

from __future__ import annotations

import asyncio
import binascii
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from ropeway.domain.cache import home_of
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.webhook import parent_id
from ropeway.engines.redis.fleet import Fleet, Home
from ropeway.engines.redis.partition import Partition

__all__ = ["Spread"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Spread:
    """What the roles of the engine share: its partitions, while it is open, and the ways to ask them."""

    _fleet: Fleet

    def __init__(self) -> None:
        self._is_open = False
        self._turns: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)

    @property
    def keep_bytes(self) -> int | None:
        """The most that the ended jobs of one partition may come to before a prune takes some; None: no limit."""
        return self._open.keep_bytes

    @property
    def partitions(self) -> list[Partition]:
        """All of them, for who looks at the store itself."""
        return [home.partition for home in self._open.homes]

    @property
    def _open(self) -> Fleet:
        if not self._is_open:
            raise EngineUnavailable("the engine is not open")
        return self._fleet

    @property
    def _first(self) -> Partition:
        """Holds what there is once: the catalogue, and the duties."""
        return self._open.homes[0].partition

    def _place(self, key: str) -> int:
        count = len(self._open.homes)
        return binascii.crc32(home_of(parent_id(key)).encode()) % count if count > 1 else 0

    def _home(self, job_id: str) -> Partition:
        return self._open.homes[self._place(job_id)].partition

    async def _everywhere(self, ask: Callable[[Partition], Awaitable[Answer]]) -> list[Answer]:
        """Every partition's answer."""
        homes = self._open.homes
        if len(homes) == 1:
            return [await ask(homes[0].partition)]
        return await asyncio.gather(*(ask(home.partition) for home in homes))

    def _by_turns(self, what: str) -> list[Partition]:
        """All partitions, beginning with another each time: none is always the last."""
        partitions = self.partitions
        first = next(self._turns[what]) % len(partitions)
        return partitions[first:] + partitions[:first]

    async def _within(self, limit: int, what: str, ask: Callable[[Partition, int], Awaitable[int]]) -> int:
        """What some partitions did, one after the other until the limit is reached."""
        done = 0
        for partition in self._by_turns(what):
            if done < limit:
                done += await ask(partition, limit - done)
        return done

    async def _spread(
        self,
        items: Sequence[Item],
        key: Callable[[Item], str],
        ask: Callable[[Home, Sequence[Item]], Awaitable[Sequence[Answer]]],
    ) -> list[Answer]:
        """Each item's answer, from the partition of its key."""
        homes = self._open.homes
        if len(homes) == 1:
            return list(await ask(homes[0], items))
        places = [self._place(key(item)) for item in items]
        asked = sorted(set(places))
        parts = [[item for item, place in zip(items, places, strict=True) if place == wanted] for wanted in asked]
        told = await asyncio.gather(*(ask(homes[place], part) for place, part in zip(asked, parts, strict=True)))
        answers = {place: iter(some) for place, some in zip(asked, told, strict=True)}
        return [next(answers[place]) for place in places]

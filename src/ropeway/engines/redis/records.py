"""The engine's records: each tenant's of a kind in one partition, and each owner's buckets in one."""

from __future__ import annotations

from collections.abc import Sequence

from ropeway.domain.bucket import Allowance, Spend, draws_of
from ropeway.domain.ids import RandomBytes
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey, check_puts
from ropeway.engines.redis import recording
from ropeway.engines.redis.spread import Spread

__all__ = ["RecordsRole"]


class RecordsRole(Spread):
    """Small documents, and rates."""

    def __init__(self, random: RandomBytes) -> None:
        super().__init__()
        self._random = random

    async def put(self, puts: Sequence[Put]) -> list[Record | RecordConflict]:
        check_puts(puts)
        marked = [recording.mark(put, self._random) for put in puts]
        return await self._spread(marked, lambda each: _key(each[0].key), lambda p, part: p.puts.do(part))

    async def fetch(self, keys: Sequence[RecordKey]) -> list[Record | None]:
        named = [key for key in keys if key.is_name]
        found = iter(await self._spread(named, _key, lambda p, part: p.fetches.do(part)))
        return [next(found) if key.is_name else None for key in keys]

    async def scan(self, kind: str, tenant: str, after: str = "", limit: int = 100) -> list[Record]:
        return await recording.scan(self._home(recording.place(kind, tenant)), kind, tenant, after, limit)

    async def drop(self, keys: Sequence[RecordKey]) -> list[bool]:
        named = [key for key in keys if key.is_name]
        were = iter(await self._spread(named, _key, lambda p, part: recording.drop(p.partition, part)))
        return [next(were) if key.is_name else False for key in keys]

    async def spend(self, wishes: Sequence[Spend]) -> list[Allowance]:
        homes = self._open.homes
        if not draws_of(wishes):
            return []
        return (await homes[self._place(recording.owner(wishes))].spends.do([wishes]))[0]

    async def _prune_records(self, limit: int) -> None:
        await self._everywhere(lambda partition: recording.prune(partition, limit))


def _key(key: RecordKey) -> str:
    return recording.place(key.kind, key.tenant)

"""Records and buckets in dicts."""

from __future__ import annotations

from collections.abc import Sequence

from ropeway.domain import bucket
from ropeway.domain.bucket import Allowance, Spend
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey, check_puts
from ropeway.engines.memory.base import Role

__all__ = ["RecordsRole"]


class RecordsRole(Role):
    """Small documents, and rates."""

    async def put(self, puts: Sequence[Put]) -> list[Record | RecordConflict]:
        now = self._now()
        check_puts(puts)
        return [self._put(put, now) for put in puts]

    async def fetch(self, keys: Sequence[RecordKey]) -> list[Record | None]:
        now = self._now()
        return [self._record(key, now) for key in keys]

    async def scan(self, kind: str, tenant: str, after: str = "", limit: int = 100) -> list[Record]:
        now = self._now()
        ids = sorted(id_ for id_ in self._store.record_ids.get((kind, tenant), ()) if id_ > after)
        found = (self._record(RecordKey(kind, tenant, id_), now) for id_ in ids)
        return [record for record in found if record is not None][:limit]

    async def drop(self, keys: Sequence[RecordKey]) -> list[bool]:
        now = self._now()
        return [self._record(key, now) is not None and self._store.drop_record(key) for key in keys]

    async def spend(self, wishes: Sequence[Spend]) -> list[Allowance]:
        now = self._now()
        return bucket.spend(wishes, self._store.buckets, now)

    def _put(self, put: Put, now: int) -> Record | RecordConflict:
        answer = put.over(self._record(put.key, now), now)
        if isinstance(answer, Record):
            self._store.keep_record(answer)
        return answer

    def _record(self, key: RecordKey, now: int) -> Record | None:
        record = self._store.records.get(key)
        return record if record is not None and record.lives_at(now) else None

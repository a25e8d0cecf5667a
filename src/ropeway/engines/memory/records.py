"""Records and buckets in dicts."""

from __future__ import annotations

from collections.abc import Sequence

from ropeway.domain.record import Allowance, Put, Record, RecordConflict, RecordKey, Spend
from ropeway.engines.memory.base import Role

__all__ = ["RecordsRole"]


class RecordsRole(Role):
    """Small documents, and rates."""

    async def put(self, puts: Sequence[Put]) -> list[Record | RecordConflict]:
        now = self._now()
        return [self._put(put, now) for put in puts]

    async def fetch(self, keys: Sequence[RecordKey]) -> list[Record | None]:
        now = self._now()
        return [self._record(key, now) for key in keys]

    async def scan(self, kind: str, tenant: str, after: str = "", limit: int = 100) -> list[Record]:
        now = self._now()
        keys = sorted(
            (key for key in self._store.records if key.kind == kind and key.tenant == tenant and key.id > after),
            key=lambda key: key.id,
        )
        found = (self._record(key, now) for key in keys)
        return [record for record in found if record is not None][:limit]

    async def drop(self, keys: Sequence[RecordKey]) -> list[bool]:
        now = self._now()
        return [self._record(key, now) is not None and self._store.records.pop(key) is not None for key in keys]

    async def spend(self, wishes: Sequence[Spend]) -> list[Allowance]:
        now = self._now()
        levels = {wish.bucket: self._level(wish, now) for wish in wishes}
        is_granted = all(wish.force or wish.amount <= levels[wish.bucket] for wish in wishes)
        for wish in wishes:
            if is_granted or wish.force:
                levels[wish.bucket] = min(levels[wish.bucket] - wish.amount, wish.capacity)
                self._store.buckets[wish.bucket] = (levels[wish.bucket], now)
        return [_allowance(wish, levels[wish.bucket], is_granted or wish.force) for wish in wishes]

    def _put(self, put: Put, now: int) -> Record | RecordConflict:
        current = self._record(put.key, now)
        version = 0 if current is None else current.version
        if put.expected not in (None, version):
            return RecordConflict(current)
        created_at_ms = now if current is None else current.created_at_ms
        expires_at_ms = None if put.ttl_ms is None else now + put.ttl_ms
        record = Record(put.key, put.body, version + 1, created_at_ms, expires_at_ms)
        self._store.records[put.key] = record
        return record

    def _record(self, key: RecordKey, now: int) -> Record | None:
        record = self._store.records.get(key)
        if record is not None and record.expires_at_ms is not None and record.expires_at_ms <= now:
            del self._store.records[key]
            return None
        return record

    def _level(self, wish: Spend, now: int) -> float:
        level, at_ms = self._store.buckets.get(wish.bucket, (wish.capacity, now))
        return min(level + max(now - at_ms, 0) / 1000 * wish.per_s, wish.capacity)


def _allowance(wish: Spend, left: float, granted: bool) -> Allowance:
    missing = wish.amount - left
    return Allowance(granted, left, 0.0 if granted or missing <= 0 else missing / wish.per_s)

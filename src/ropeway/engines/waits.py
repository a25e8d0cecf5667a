"""Who waits for whom, as records of an engine, so that whoever wakes the waiting finds them all.

    kind      id                    body
    waits     <time>-<waiting job>  who waits, and for which jobs
    families  <time>-<first child>  a parent's children, as many as it submitted in one call

They have no tenant as records, so that one look finds all of them, and are in the order of their times, so that a look
at the newest is short. A record is there before what it tells of: a job that was never submitted leaves one behind,
which whoever wakes drops after a time. None of them is truth: a job looks for itself, before it begins, at those that
it waits for, and at its parent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from ropeway.domain.record import Put, Record, RecordKey
from ropeway.engines.records import Records

__all__ = ["TOPIC", "Family", "Kept", "Store", "Wait", "Waits"]

TOPIC = "waits"
PAGE = 500

_WAITS, _FAMILIES = "waits", "families"


_encode = msgspec.json.Encoder().encode


class Store(Records, Protocol):
    """What this needs of an engine."""

    async def tell(self, *topics: str) -> None: ...


class Wait(msgspec.Struct, frozen=True):
    """A job, its tenant, and the jobs whose ends it waits for. `needs_all`: it is lost when one does not succeed."""

    job: str
    tenant: str
    jobs: tuple[str, ...]
    needs_all: bool = True


class Family(msgspec.Struct, frozen=True):
    """Children that an attempt of a parent submitted in one call."""

    parent: str
    tenant: str
    children: tuple[str, ...]


class Kept(NamedTuple):
    """A record's key, what it holds, and since when."""

    key: RecordKey
    what: Wait | Family
    since_ms: int


class Waits:
    """The waits and the families of all tenants."""

    def __init__(self, engine: Store) -> None:
        self._engine = engine

    async def expect(self, waits: Iterable[Wait], now_ms: int) -> None:
        """Note who is about to wait. Before the job is submitted, or its attempt snoozes; then `tell`."""
        await self._engine.put([Put(_key(_WAITS, now_ms, wait.job), _encode(wait).decode()) for wait in waits])

    async def adopt(self, family: Family, now_ms: int) -> None:
        """Note the children that are about to be submitted; then `tell`."""
        await self._engine.put([Put(_key(_FAMILIES, now_ms, family.children[0]), _encode(family).decode())])

    async def tell(self) -> None:
        """Hint to whoever wakes that there is something new."""
        await self._engine.tell(TOPIC)

    async def since(self, at_ms: int) -> AsyncIterator[Kept]:
        """Those that were noted from this time on, by the clocks of those who noted them; waits before families."""
        async for record in self._records(_WAITS, at_ms):
            yield Kept(record.key, _decode_wait(record.body), record.created_at_ms)
        async for record in self._records(_FAMILIES, at_ms):
            yield Kept(record.key, _decode_family(record.body), record.created_at_ms)

    async def drop(self, keys: Sequence[RecordKey]) -> None:
        """Forget those that have come to their end."""
        if keys:
            await self._engine.drop(keys)

    async def _records(self, kind: str, since_ms: int) -> AsyncIterator[Record]:
        after = _time(since_ms)
        while True:
            records = await self._engine.scan(kind, "", after, PAGE)
            for record in records:
                yield record
            if len(records) < PAGE:
                return
            after = records[-1].key.id


def _key(kind: str, now_ms: int, name: str) -> RecordKey:
    return RecordKey(kind, "", f"{_time(now_ms)}-{name}")


def _time(at_ms: int) -> str:
    return f"{max(at_ms, 0):013}"


_decode_wait = msgspec.json.Decoder(Wait).decode
_decode_family = msgspec.json.Decoder(Family).decode

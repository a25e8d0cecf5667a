"""What files use of an engine: its records; and whose store of blobs it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ropeway.blobs.base import BlobStore
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey

__all__ = ["Ledger", "has_store", "owns"]

OWNER_KEY = RecordKey("blobstore", "", "owner")


class Ledger(Protocol):
    """An engine's records; each write is one atomic step."""

    async def put(self, puts: Sequence[Put]) -> list[Record | RecordConflict]: ...

    async def fetch(self, keys: Sequence[RecordKey]) -> list[Record | None]: ...

    async def scan(self, kind: str, tenant: str, after: str = "", limit: int = 100) -> list[Record]: ...

    async def drop(self, keys: Sequence[RecordKey]) -> list[bool]: ...


async def has_store(ledger: Ledger) -> bool:
    """Whether this engine ever kept a file."""
    (record,) = await ledger.fetch([OWNER_KEY])
    return record is not None


async def owns(ledger: Ledger, store: BlobStore, name: str) -> bool:
    """Whether this engine owns the store: it does when it was the first to ask.

    `name` is what the engine is called from now on, if it has no name yet.
    """
    await ledger.put([Put(OWNER_KEY, msgspec.json.encode(name).decode(), expected=0)])
    (record,) = await ledger.fetch([OWNER_KEY])
    ours = name if record is None else msgspec.json.decode(record.body, type=str)
    return await store.claim(ours) == ours

"""The fifth role of an engine: small documents, and rates that all processes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ropeway.domain.bucket import Allowance, Spend
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey

__all__ = ["Records"]


class Records(Protocol):
    """Documents by kind, tenant and id; each write is one atomic step, durable to the engine's class on return.

    A batch is atomic record by record: one written after the other, in its order.
    """

    async def put(self, puts: Sequence[Put]) -> list[Record | RecordConflict]:
        """Write records, each a compare-and-set on its version; one that conflicts stops no other.

        Raises InvalidRequest and PayloadTooLarge for what can be no record; then nothing is written.
        """
        ...

    async def fetch(self, keys: Sequence[RecordKey]) -> list[Record | None]:
        """The records as they stand; None for what is not there or has expired."""
        ...

    async def scan(self, kind: str, tenant: str, after: str = "", limit: int = 100) -> list[Record]:
        """A tenant's records of a kind in the order of their ids (by code point), strictly after `after`."""
        ...

    async def drop(self, keys: Sequence[RecordKey]) -> list[bool]:
        """Delete records; whether each was there."""
        ...

    async def spend(self, wishes: Sequence[Spend]) -> list[Allowance]:
        """Take from buckets on the engine's clock: all of the amounts, or none of them when one cannot be had.

        Forced ones are always taken. Buckets are shared by all processes; a full one takes no room. All buckets of a
        call have one owner (see `Spend`): an owner's buckets live in one place, others' elsewhere. A rate is no record
        of account: what was taken may be forgotten when the power goes, and OutcomeUnknown may have taken it.

        Raises InvalidRequest: several owners, or a bucket that can be none (see `bucket.draws_of`).
        """
        ...

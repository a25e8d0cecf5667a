"""Records: small documents that are kept beside the jobs, and the buckets that rates are taken from.

A kind of record belongs to one part of Ropeway, which alone knows what its body holds: keys, tenants, files, batches.
"""

from __future__ import annotations

import msgspec

__all__ = ["Allowance", "Put", "Record", "RecordConflict", "RecordKey", "Spend"]


class RecordKey(msgspec.Struct, frozen=True):
    """Where a record is. `kind` and `id` are names of ours; `tenant` is '' for what belongs to all."""

    kind: str
    tenant: str
    id: str


class Record(msgspec.Struct, frozen=True):
    """A record as it stands. `body` is JSON text; `version` is 1 at first and rises with every write."""

    key: RecordKey
    body: str
    version: int
    created_at_ms: int
    expires_at_ms: int | None = None


class Put(msgspec.Struct, frozen=True):
    """A record to be written, whole.

    `expected` is the version it must have now: 0 for one that must not be there, None for whatever it is. `ttl_ms`
    counts from the engine's now; None keeps it for ever.
    """

    key: RecordKey
    body: str
    expected: int | None = None
    ttl_ms: int | None = None


class RecordConflict(msgspec.Struct, frozen=True):
    """The record was in another version than expected, and nothing was written: it is as `current` tells."""

    current: Record | None


class Spend(msgspec.Struct, frozen=True):
    """An amount to be taken from a bucket that refills.

    `bucket` is its name; it refills at `per_s` a second up to `capacity`, and begins full. With `force` the amount is
    taken though the bucket is thereby in debt (a correction afterwards); a negative amount gives back.
    """

    bucket: str
    amount: float
    per_s: float
    capacity: float
    force: bool = False


class Allowance(msgspec.Struct, frozen=True):
    """Whether it was taken, what is left, and in how many seconds as much as was asked for will be there (0: now)."""

    granted: bool
    left: float
    retry_after_s: float = 0.0

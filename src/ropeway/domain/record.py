"""Records: small documents that are kept beside the jobs.

A kind of record belongs to one part of Ropeway, which alone knows what its body holds: keys, tenants, files, batches.
(The buckets that rates are taken from stand in `domain.bucket`.)
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ropeway.domain.bucket import Allowance, Spend
from ropeway.domain.errors import InvalidRequest, PayloadTooLarge

__all__ = ["MAX_BODY_BYTES", "Allowance", "Put", "Record", "RecordConflict", "RecordKey", "Spend", "check_puts"]

MAX_BODY_BYTES = 1024 * 1024  # a record is read and written whole
_NAME_LIMIT = 255


class RecordKey(msgspec.Struct, frozen=True):
    """Where a record is: three names of at most 255 printable characters without spaces.

    `kind` is a name of ours; `tenant` is '' for what belongs to all. An id is given to one thing only: after a drop
    versions begin at 1 again.
    """

    kind: str
    tenant: str
    id: str

    @property
    def is_name(self) -> bool:
        """Whether there can be a record of this name; of another nobody has one."""
        return _is_name(self.kind) and (self.tenant == "" or _is_name(self.tenant)) and _is_name(self.id)


class Record(msgspec.Struct, frozen=True):
    """A record as it stands. `body` is JSON text; `version` is 1 at first and rises with every write."""

    key: RecordKey
    body: str
    version: int
    created_at_ms: int
    expires_at_ms: int | None = None

    def lives_at(self, now_ms: int) -> bool:
        """Whether it has not expired: a record that has is as one that is not there."""
        return self.expires_at_ms is None or self.expires_at_ms > now_ms


class Put(msgspec.Struct, frozen=True):
    """A record to be written, whole.

    `expected` is the version it must have now: 0 for one that must not be there, None for whatever it is. `ttl_ms`
    counts from the engine's now; None keeps it for ever.
    """

    key: RecordKey
    body: str
    expected: int | None = None
    ttl_ms: int | None = None

    def over(self, current: Record | None, now_ms: int) -> Record | RecordConflict:
        """The record that this writes over the one that lives there, if any."""
        version = 0 if current is None else current.version
        if self.expected not in (None, version):
            return RecordConflict(current)
        created_at_ms = now_ms if current is None else current.created_at_ms
        expires_at_ms = None if self.ttl_ms is None else now_ms + self.ttl_ms
        return Record(self.key, self.body, version + 1, created_at_ms, expires_at_ms)


class RecordConflict(msgspec.Struct, frozen=True):
    """The record was in another version than expected, and nothing was written: it is as `current` tells."""

    current: Record | None


def check_puts(puts: Iterable[Put]) -> None:
    """Raises InvalidRequest for a name that no record can have, PayloadTooLarge for a body above 1 MiB."""
    for put in puts:
        if not put.key.is_name:
            raise InvalidRequest(
                f"{put.key.kind[:40]!r}, {put.key.tenant[:40]!r}, {put.key.id[:40]!r} name no record: each is 1 to "
                f"{_NAME_LIMIT} printable characters without spaces"
            )
        if len(put.body) > MAX_BODY_BYTES or len(put.body.encode()) > MAX_BODY_BYTES:
            raise PayloadTooLarge(f"the body of {put.key.kind} {put.key.id} is above {MAX_BODY_BYTES:,} bytes")


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _NAME_LIMIT and " " not in text and text.isprintable()

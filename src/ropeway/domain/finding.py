"""What a look at a store found wrong in it."""

from __future__ import annotations

import msgspec

__all__ = ["Finding"]


class Finding(msgspec.Struct, frozen=True):
    """One fault of a store.

    Attributes:
        kind: `missing` (a job is not in an index it belongs in) · `misplaced` (it is there at another place) ·
            `unlisted` (it is not on its tenant's list) · `stray` (an index holds what does not belong in it) ·
            `orphan` (a key without its owner) · `parked` (a job waits for a limit in vain) · `session` · `queue` ·
            `number` · `row` · `log` · `count` · `type` · `unknown` · `file`.
        key: the key, or the table, that it is about.
        what: what is wrong, for a person.
        repairable: whether a repair can put it right without inventing or deleting a job.
        repaired: whether it has been put right.
    """

    kind: str
    key: str
    what: str
    repairable: bool = False
    repaired: bool = False

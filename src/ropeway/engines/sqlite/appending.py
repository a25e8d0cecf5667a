"""Append: events of running attempts, each batch of drafts one row, each under its lease."""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ropeway.domain.errors import LeaseLost
from ropeway.domain.event import OUTPUT_DELTA, PROGRESS, USAGE, Cursor
from ropeway.domain.lease import Append, Appended
from ropeway.domain.lifecycle import State
from ropeway.engines.sqlite.rows import EventRow, events_of
from ropeway.engines.sqlite.schema import CODES
from ropeway.engines.sqlite.statements import encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["append"]

_HELD = f"""
SELECT json_group_array(json_array(
    jobs.n, jobs.id, token, epoch, seq, attempt, first_output_at_ms, cancel_requested_at_ms IS NOT NULL))
FROM json_each(?1) AS wanted CROSS JOIN jobs ON jobs.id = wanted.value
WHERE jobs.state = {CODES[State.running]}
"""

_ADD = """
INSERT INTO events(n, epoch, seq, attempt, at_ms, entries)
SELECT value->>0, value->>1, value->>2, value->>3, ?2, value->4 FROM jsonb_each(?1)
"""

_TELL = """
UPDATE jobs SET seq = told.seq, version = version + told.writes, progress = coalesce(told.progress, jobs.progress),
    usage = coalesce(told.usage, jobs.usage), first_output_at_ms = told.first_output_at_ms
FROM (SELECT value->>0 AS number, value->>1 AS seq, value->>2 AS writes, value->>3 AS progress, value->>4 AS usage,
             value->>5 AS first_output_at_ms
      FROM jsonb_each(?1)) AS told
WHERE n = told.number
"""

_WRITTEN = """
SELECT json_group_array(json_array(epoch, seq, attempt, at_ms, json(entries)))
FROM (SELECT * FROM events
      WHERE n = ?1 AND epoch = ?2 AND seq >= coalesce(
          (SELECT max(seq) FROM events WHERE n = ?1 AND epoch = ?2 AND seq <= ?3), 0) ORDER BY seq)
"""


class _Held(msgspec.Struct, array_like=True):
    """A running job under its lease, moved on by each append of the batch."""

    n: int
    id: str
    token: str
    epoch: int
    seq: int
    attempt: int
    first_output_at_ms: int | None
    cancel_requested: bool
    writes: int = 0
    progress: str | None = None
    usage: str | None = None


_decode = msgspec.json.Decoder(list[_Held], strict=False).decode  # SQLite writes a truth as 0 or 1
_decode_written = msgspec.json.Decoder(list[EventRow]).decode


def append(tx: Transaction, batch: Sequence[Append]) -> list[Appended | LeaseLost]:
    """`Execution.append`."""
    ids = {append.lease.job_id for append in batch}
    writing = _Writing(tx, {held.id: held for held in _decode(tx.value(_HELD, encode_text(list(ids))))})
    answers = [writing.answer(append) for append in batch]
    writing.save()
    return answers


class _Writing:
    def __init__(self, tx: Transaction, held: dict[str, _Held]) -> None:
        self._tx = tx
        self._held = held
        self._rows: list[tuple[Any, ...]] = []

    def answer(self, append: Append) -> Appended | LeaseLost:
        held = self._held.get(append.lease.job_id)
        if held is None or held.token != append.lease.token:
            return LeaseLost()
        if append.expected_seq == held.seq:
            self._write(held, append.drafts)
        elif not self._is_repeat(held, append):
            return LeaseLost(f"event {append.expected_seq} of {held.id} is not the next: that is {held.seq}")
        return Appended(held.seq, held.cancel_requested)

    def _write(self, held: _Held, drafts: tuple[tuple[str, str], ...]) -> None:
        if drafts:
            self._rows.append((held.n, held.epoch, held.seq, held.attempt, drafts))
        held.seq += len(drafts)
        held.writes += 1
        for type_, data in drafts:
            if type_ == PROGRESS:
                held.progress = data
            elif type_ == USAGE:
                held.usage = data
            elif type_ == OUTPUT_DELTA and held.first_output_at_ms is None:
                held.first_output_at_ms = self._tx.now_ms
        self._tx.topics.jobs.add(held.id)

    def _is_repeat(self, held: _Held, append: Append) -> bool:
        """Whether these very events are written already: the reply to them was lost."""
        self.save()
        first = Cursor(held.epoch, append.expected_seq)
        wanted = [(Cursor(held.epoch, n), *draft) for n, draft in enumerate(append.drafts, append.expected_seq)]
        log = events_of(held.id, _decode_written(self._tx.value(_WRITTEN, held.n, *first)))
        written = [(event.cursor, event.type, event.data) for event in log if event.cursor >= first]
        return bool(wanted) and written[: len(wanted)] == wanted

    def save(self) -> None:
        """Write what was accepted since the last save."""
        told = [held for held in self._held.values() if held.writes]
        self._tx.run_packed(_ADD, self._rows, self._tx.now_ms)
        self._tx.run_packed(_TELL, [_told(held) for held in told])
        self._rows = []
        for held in told:
            held.writes = 0


def _told(held: _Held) -> tuple[Any, ...]:
    return held.n, held.seq, held.writes, held.progress, held.usage, held.first_output_at_ms

"""Statements on a connection: whole batches in, one value out.

Each step of SQLite gives the interpreter lock away, and beside a busy event loop it comes back only after a switch
interval. So a batch is one statement over `jsonb_each(?1)`, and its answer one JSON text. (`jsonb_each` reads each row
once; with `json_each` every `value->>k` reads it again, which made 16 columns cost 15 us a row and not 6.5.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

__all__ = ["Statements", "encode_text", "packed"]

_PACK_BYTES = 32 * 1024 * 1024  # far below the 1 GB that SQLite takes as one value

_encode = msgspec.json.Encoder().encode


class Statements:
    """A connection, as the operations use it."""

    __slots__ = ("_connection",)

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def value(self, sql: str, *bindings: Any) -> Any:
        """The only value of the only row; None when there is none."""
        return self._connection.execute(sql, bindings).get

    def run(self, sql: str, *bindings: Any) -> int:
        """How many rows it changed."""
        self._connection.execute(sql, bindings)
        return self._connection.changes()

    def run_packed(self, sql: str, rows: Sequence[Any], *bindings: Any) -> None:
        """A statement over `jsonb_each(?1)`, for all these rows at once; nothing for no rows."""
        if rows:
            for pack in packed(rows):
                self._connection.execute(sql, (pack, *bindings))


def encode_text(value: Any) -> str:
    """JSON text, as SQLite takes it."""
    return _encode(value).decode()


def packed(rows: Sequence[Any]) -> list[str]:
    """The rows as JSON arrays: one as a rule, more when they would not fit into one value."""
    text = _encode(rows)
    if len(text) <= _PACK_BYTES or len(rows) < 2:
        return [text.decode()]
    middle = len(rows) // 2
    return packed(rows[:middle]) + packed(rows[middle:])

"""What attempts used, added up as they end: one row for each number of a tenant, day and task.

The number without a name counts jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import groupby
from typing import NamedTuple

import msgspec

from ropeway.domain.usage import KEPT_DAYS, UsageRow, amounts_of, day_of
from ropeway.engines.sqlite.statements import Statements
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["Used", "forget_usage", "note_usage", "usage"]

_JOBS = ""

_ADD = """
INSERT INTO usage(tenant, day, task, name, amount)
SELECT value->>0, ?2, value->>1, value->>2, value->>3 FROM jsonb_each(?1) WHERE true
ON CONFLICT DO UPDATE SET amount = amount + excluded.amount
"""

_ROWS = """
SELECT json_group_array(json_array(day, task, name, amount) ORDER BY day, task, name)
FROM usage WHERE tenant = ?1 AND day BETWEEN ?2 AND ?3
"""

_FORGET = "DELETE FROM usage WHERE day < ?"

_decode = msgspec.json.Decoder(list[tuple[int, str, str, float]]).decode


class Used(NamedTuple):
    """What an attempt told as it ended. `ends`: whether its job did too."""

    tenant: str
    task: str
    ends: bool
    usage: str


def note_usage(tx: Transaction, told: Sequence[Used]) -> None:
    """Add what attempts used to the account of today."""
    if not told:
        return
    rows: list[tuple[str, str, str, float]] = []
    for one in told:
        amounts = amounts_of(one.usage)
        rows += [(one.tenant, one.task, name, amount) for name, amount in amounts.items()]
        if one.ends and amounts:
            rows.append((one.tenant, one.task, _JOBS, 1))
    tx.run_packed(_ADD, rows, day_of(tx.now_ms).toordinal())


def usage(db: Statements, tenant: str, since: date, until: date) -> list[UsageRow]:
    """`Reading.usage`."""
    found = _decode(db.value(_ROWS, tenant, since.toordinal(), until.toordinal()))
    rows: list[UsageRow] = []
    for (day, task), numbers in groupby(found, key=lambda row: row[:2]):
        amounts = {name: amount for _, _, name, amount in numbers}
        jobs = round(amounts.pop(_JOBS, 0))
        rows.append(UsageRow(tenant, date.fromordinal(day), task, jobs, amounts))
    return rows


def forget_usage(tx: Transaction) -> None:
    """Drop the rows that are older than they are kept."""
    tx.run(_FORGET, day_of(tx.now_ms).toordinal() - KEPT_DAYS)

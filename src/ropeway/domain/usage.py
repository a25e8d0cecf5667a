"""What tasks told that they used, added up for each tenant, day and task."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from typing import Any

import msgspec

__all__ = ["KEPT_DAYS", "UsageRow", "amounts_of", "day_of", "day_start_ms"]

KEPT_DAYS = 400
"""Days that a row of usage is kept: a year can be compared with the one before."""

DAY_MS = 86_400_000
AMOUNT_LIMIT = 16  # names that one commit may add to: what a task tells is not to fill the store
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class UsageRow(msgspec.Struct, frozen=True):
    """What one tenant's attempts at one task used, of those that ended on one day (UTC) of the engine's clock.

    `jobs` are those that ended with such an attempt; `amounts` the sums of all, those tried again too.
    """

    tenant: str
    day: date
    task: str
    jobs: int = 0
    amounts: dict[str, float] = {}


def amounts_of(usage: str | None) -> dict[str, float]:
    """The numbers in what an attempt told, by name: at most 16, each a name of up to 64 characters."""
    if usage is None:
        return {}
    try:
        told = _decode(usage)
    except (msgspec.MsgspecError, RecursionError):
        return {}
    numbers = {name: amount for name, amount in told.items() if _is_amount(amount) and _NAME.fullmatch(name)}
    return dict(list(numbers.items())[:AMOUNT_LIMIT])


def day_of(at_ms: int) -> date:
    """The day, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).date()


def day_start_ms(day: date) -> int:
    """When the day began."""
    return (day - date(1970, 1, 1)).days * DAY_MS


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e15

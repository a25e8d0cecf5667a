"""Usage as the world sees it: what a tenant's tasks used, day by day."""

from __future__ import annotations

from datetime import date, timedelta

import msgspec

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.usage import KEPT_DAYS, UsageRow

__all__ = ["DEFAULT_DAYS", "UsageBody", "UsageList", "checked_days", "usage_body"]

DEFAULT_DAYS = 30


class UsageBody(msgspec.Struct, frozen=True):
    """What one task used on one day (UTC): `amounts` by the names that it told, `jobs` that ended so."""

    day: date
    task: str
    jobs: int
    amounts: dict[str, float]


class UsageList(msgspec.Struct, frozen=True):
    """The days asked for, both included, by day and task; days and tasks without usage are left out."""

    since: date
    until: date
    data: list[UsageBody]


def usage_body(row: UsageRow) -> UsageBody:
    """The public form of a row: its reader knows whose it is."""
    amounts = {name: int(amount) if amount == int(amount) else amount for name, amount in row.amounts.items()}
    return UsageBody(row.day, row.task, row.jobs, amounts)


def checked_days(since: date | None, until: date | None, today: date) -> tuple[date, date]:
    """The days to ask for; the last thirty by default. Raises InvalidRequest when they begin after they end."""
    last = until or today
    first = since or min(last, today) - timedelta(DEFAULT_DAYS - 1)
    if first > last:
        raise InvalidRequest(f"since {first} is after until {last}", param="since")
    if (last - first).days > 2 * KEPT_DAYS:
        raise InvalidRequest(f"usage is kept for {KEPT_DAYS} days: ask for fewer", param="since")
    return first, last

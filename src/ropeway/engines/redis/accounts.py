"""What attempts used: how it goes into the scripts that end them, and how the accounts are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import msgspec

from ropeway.domain.usage import KEPT_DAYS, UsageRow, amounts_of, day_of
from ropeway.engines.redis.partition import Partition

__all__ = ["account", "joined_usage", "usage", "usage_text"]

_FIRST_DAY = date(1970, 1, 1)

_encode = msgspec.json.Encoder().encode


def account(usage: str | None) -> list[str]:
    """The numbers that are added up, each behind its name."""
    return [text for name, amount in amounts_of(usage).items() for text in (name, repr(amount))]


def usage_text(usage: str | None) -> str:
    """A commit's usage as the script takes it: '' for none; else how long the account in front of it is, '+', that
    account, and the usage itself."""
    if usage is None:
        return ""
    told = account(usage)
    front = _encode(told).decode() if told else ""
    return f"{len(front)}+{front}{usage}"


async def usage(partition: Partition, tenant: str, since: date, until: date) -> list[UsageRow]:
    """`Reading.usage`, of one partition."""
    now_ms = (await partition.call("usage", tenant, 0, -1)).now_ms
    today = day_of(now_ms)
    first = max(since, today - timedelta(KEPT_DAYS + 1))
    last = min(until, today + timedelta(1))
    reply = await partition.call("usage", tenant, (first - _FIRST_DAY).days, (last - _FIRST_DAY).days)
    days = reply.values
    return [row for n in range(0, len(days), 2) for row in _rows(tenant, int(days[n]), days[n + 1])]


def joined_usage(told: Sequence[Sequence[UsageRow]]) -> list[UsageRow]:
    """The accounts of all partitions as one."""
    rows: dict[tuple[date, str], UsageRow] = {}
    for row in (row for some in told for row in some):
        known = rows.get((row.day, row.task))
        rows[row.day, row.task] = row if known is None else _sum(known, row)
    return sorted(rows.values(), key=lambda row: (row.day, row.task))


def _rows(tenant: str, day: int, flat: Sequence[Any]) -> Iterator[UsageRow]:
    tasks: dict[str, dict[str, float]] = {}
    for field, amount in zip(flat[::2], flat[1::2], strict=True):
        task, _, name = field.partition(" ")
        tasks.setdefault(task, {})[name] = float(amount)
    for task, amounts in tasks.items():
        jobs = round(amounts.pop("", 0))
        yield UsageRow(tenant, _FIRST_DAY + timedelta(day), task, jobs, dict(sorted(amounts.items())))


def _sum(one: UsageRow, other: UsageRow) -> UsageRow:
    names = sorted({*one.amounts, *other.amounts})
    amounts = {name: one.amounts.get(name, 0) + other.amounts.get(name, 0) for name in names}
    return msgspec.structs.replace(one, jobs=one.jobs + other.jobs, amounts=amounts)

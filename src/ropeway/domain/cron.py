"""Cron expressions: when the next time is, in any time zone.

The words of an expression are read, and times without a zone found, by CronSim, which follows Debian's cron. What a
zone makes of them is decided here, in two rules of the same cron (its own arithmetic is wrong in zones whose clocks
change by half an hour):

fixed    neither minute nor hour begins with `*`: `30 2 * * *`. It is meant once a day. A time that the clocks leap over
         comes at the instant after the leap; one that comes twice is the first of both.
running  one of them does: `*/15 * * * *`. It goes by the clock on the wall: what is leapt over is not there, and what
         comes twice is twice, so that the distance between two times stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from ropeway.domain.errors import InvalidRequest

__all__ = ["Cron", "first_instant", "zone_of"]

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = 5
TEXT_LIMIT = 200
ZONE_LIMIT = 64
DAY_S = 86_400
FIRST, LAST = -62_000_000_000, 253_000_000_000  # seconds: within the years that a datetime has, in every zone

_EPOCH = datetime(1970, 1, 1)
_SECOND = timedelta(seconds=1)
_ZONE_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-/")


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """The time zone of this name in the IANA database. Raises InvalidRequest."""
    try:
        if not (0 < len(name) <= ZONE_LIMIT and _ZONE_CHARS.issuperset(name)):
            raise ValueError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of the database is an OSError
        raise InvalidRequest(
            f"there is no time zone {name[:ZONE_LIMIT]!r}: name one as 'Europe/Berlin' or 'UTC'", param="timezone"
        ) from None


@lru_cache(maxsize=1024)
class Cron:
    """A cron expression: five fields, or a word such as `@daily`. Instants are seconds since the epoch."""

    def __init__(self, text: str) -> None:
        """Raises InvalidRequest."""
        self._text = _fields_of(text)
        minute, hour, *_ = self._text.split()
        self._is_fixed = minute[0] != "*" and hour[0] != "*"
        if next(self._naive(_EPOCH), None) is None:
            raise InvalidRequest(f"cron {text!r} never comes", param="cron")

    def after(self, at_s: int, zone: ZoneInfo) -> int | None:
        """The first time strictly after an instant; None when there is none within fifty years."""
        if not FIRST < at_s < LAST:
            return None
        found = self._fixed_after(at_s, zone) if self._is_fixed else self._running_after(at_s, zone)
        return found if found is not None and found < LAST else None

    def _fixed_after(self, at_s: int, zone: ZoneInfo) -> int | None:
        for naive in self._naive(_local(at_s, zone)):
            instant = first_instant(naive, zone)
            if instant > at_s:  # it is not where `at_s` is in the second pass of an hour
                return instant
        return None

    def _running_after(self, at_s: int, zone: ZoneInfo) -> int | None:
        naive, offset_s = _local(at_s, zone), _offset_s(at_s, zone)
        while (found := next(self._naive(naive), None)) is not None:
            instant = _seconds(found) - offset_s
            changes_at = _first_change(at_s, instant, zone)
            if changes_at is None:
                return instant
            at_s, offset_s = changes_at, _offset_s(changes_at, zone)
            naive = _local(at_s, zone) - _SECOND  # the instant of the change itself may be one
        return None

    def _naive(self, after: datetime) -> Iterator[datetime]:
        """The times that the expression names after one, on a clock that is never changed."""
        try:
            yield from CronSim(self._text, after)
        except (OverflowError, ValueError):  # past the year 9999
            return


def _fields_of(text: str) -> str:
    """The expression's five fields, if they can be read. Raises InvalidRequest."""
    fields = MACROS.get(text.strip().lower(), text)
    try:
        if len(text) > TEXT_LIMIT or len(fields.split()) != FIELDS:
            raise CronSimError(f"five fields are wanted, not {len(fields.split())}")
        CronSim(fields, _EPOCH)
    except (CronSimError, AssertionError, ValueError) as error:
        why = str(error)[:1].lower() + str(error)[1:] or "cannot be read"
        wanted = "minute, hour, day of month, month, day of week, as '30 3 * * 1-5'"
        raise InvalidRequest(f"cron {text[:TEXT_LIMIT]!r}: {why}; it is {wanted}", param="cron") from None
    return fields


def _local(at_s: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at_s, zone).replace(tzinfo=None)


def _offset_s(at_s: int, zone: ZoneInfo) -> int:
    return _delta_s(datetime.fromtimestamp(at_s, zone))


def _delta_s(moment: datetime) -> int:
    return round((moment.utcoffset() or timedelta()).total_seconds())


def _seconds(naive: datetime) -> int:
    return round((naive - _EPOCH) / _SECOND)


def first_instant(naive: datetime, zone: ZoneInfo) -> int:
    """When a clock in this zone first shows this time, or has leapt over it."""
    early = _seconds(naive) - _delta_s(naive.replace(tzinfo=zone, fold=0))
    if _local(early, zone) == naive:
        return early
    late = _seconds(naive) - _delta_s(naive.replace(tzinfo=zone, fold=1))  # PEP 495: in a gap, before `early`
    change = _first_change(late, early, zone)
    assert change is not None, f"{naive} is no time in {zone.key}, and no change of its clocks is near"
    return change


def _first_change(after_s: int, until_s: int, zone: ZoneInfo) -> int | None:
    """The first instant after one, up to another, at which the zone's clocks are changed."""
    before = _offset_s(after_s, zone)
    low = after_s
    while low < until_s:
        high = min(low + DAY_S, until_s)
        if _offset_s(high, zone) != before:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset_s(middle, zone) == before else (low, middle)
            return high
        low = high
    return None

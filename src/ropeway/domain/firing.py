"""When a schedule fires: its next time, and what becomes of times that have passed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, get_args

import msgspec

from ropeway.domain.cron import Cron, first_instant, zone_of
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.schedule import (
    DEFAULT_GRACE_MS,
    MOST_AT_ONCE,
    CatchUp,
    Incident,
    Overlap,
    Schedule,
    ScheduleSettings,
    Timing,
    id_at,
)

__all__ = [
    "Rules",
    "Turn",
    "advanced",
    "checked_rules",
    "instant_ms",
    "next_time",
    "rescheduled",
    "times_after",
    "turn",
]

MIN_INTERVAL_S = 1.0
LIMIT_S = 366 * 86_400.0
HOUR_MS = 3_600_000
LAST_MS = 253_000_000_000_000


class Turn(NamedTuple):
    """What to do about a schedule now: the times that make jobs, whether others were missed, and the time after all."""

    fire: tuple[int, ...]
    missed: int | None
    next_at_ms: int | None


class Rules(NamedTuple):
    """When a schedule fires, checked."""

    timing: Timing
    catch_up: CatchUp
    grace_ms: int
    overlap: Overlap


def checked_rules(told: ScheduleSettings) -> Rules:
    """The rules that people told. Raises InvalidRequest; `param` names the setting."""
    timing = _timing(told)
    catch_up, overlap = told.get("catch_up", "latest"), told.get("overlap", "allow")
    if catch_up not in get_args(CatchUp):
        raise InvalidRequest(f"catch_up is skip, latest or all, not {catch_up!r}", param="catch_up")
    if overlap not in get_args(Overlap):
        raise InvalidRequest(f"overlap is allow or skip, not {overlap!r}", param="overlap")
    return Rules(timing, catch_up, _ms("grace", told.get("grace", DEFAULT_GRACE_MS / 1000), 0.0), overlap)


def _timing(told: ScheduleSettings) -> Timing:
    cron, interval, timezone = told.get("cron"), told.get("interval"), told.get("timezone", "UTC")
    starts_at, ends_at = told.get("starts_at"), told.get("ends_at")
    zone_of(timezone)
    if (cron is None) == (interval is None):
        raise InvalidRequest("a schedule has either `cron` or `interval`", param="cron")
    if cron is not None:
        Cron(cron)
    timing = Timing(
        cron=cron,
        interval_ms=None if interval is None else _ms("interval", interval, MIN_INTERVAL_S),
        timezone=timezone,
        starts_at_ms=None if starts_at is None else instant_ms(starts_at, timezone, "starts_at"),
        ends_at_ms=None if ends_at is None else instant_ms(ends_at, timezone, "ends_at"),
        jitter_ms=_ms("jitter", told.get("jitter", 0.0), 0.0),
    )
    if timing.starts_at_ms is not None and timing.ends_at_ms is not None and timing.ends_at_ms <= timing.starts_at_ms:
        raise InvalidRequest("`ends_at` is not after `starts_at`", param="ends_at")
    return timing


def instant_ms(told: str | datetime, timezone: str | None, param: str) -> int:
    """An instant, from a datetime or its text: RFC 3339, or with a zone's name behind it (RFC 9557).

    One without an offset is in `timezone`; where there is none it is refused. A time that a zone's clocks leap over is
    the instant after the leap, and of one that comes twice it is the first. Raises InvalidRequest.
    """
    moment, zone = (told, None) if isinstance(told, datetime) else _parsed(told, param)
    if moment.tzinfo is not None:
        at_ms = _checked_ms(round(moment.timestamp() * 1000), param)
        _check_agrees(moment, zone, param)
        return at_ms
    wanted = zone or timezone
    if wanted is None:
        raise InvalidRequest(
            f"{param} needs an offset, as 2026-12-24T18:00:00+01:00, or a zone, as 2026-12-24T18:00:00[Europe/Berlin]",
            param=param,
        )
    return _checked_ms(_in_zone(moment, wanted, param), param)


def next_time(timing: Timing, anchor_ms: int, after_ms: int) -> int | None:
    """The first time strictly after an instant; None: there is none any more. `anchor_ms`: when it was made."""
    start = timing.starts_at_ms
    if start is not None:
        after_ms = max(after_ms, start - 1)
    if timing.interval_ms is not None:
        found = _next_interval(timing.interval_ms, anchor_ms, start, after_ms)
    else:
        second = Cron(timing.cron or "").after(after_ms // 1000, zone_of(timing.timezone))
        found = None if second is None else second * 1000
    ended = found is None or (timing.ends_at_ms is not None and found >= timing.ends_at_ms)
    return None if ended else found


def rescheduled(schedule: Schedule, timing: Timing, now_ms: int) -> Schedule:
    """The schedule with this timing from now on. A time that has made its job does not come again."""
    after_ms = max(now_ms, schedule.last_at_ms or 0)
    return msgspec.structs.replace(
        schedule, timing=timing, next_at_ms=next_time(timing, schedule.created_at_ms, after_ms), last_error=None
    )


def times_after(timing: Timing, anchor_ms: int, after_ms: int) -> Iterator[int]:
    """All times strictly after an instant."""
    found = next_time(timing, anchor_ms, after_ms)
    while found is not None:
        yield found
        found = next_time(timing, anchor_ms, found)


def turn(schedule: Schedule, now_ms: int) -> Turn | None:
    """What to do about a schedule now; None when nothing of it is due."""
    due_at_ms = schedule.due_at_ms()
    if due_at_ms is None or due_at_ms > now_ms:
        return None
    due = _due(schedule, now_ms)
    on_time = [at_ms for at_ms in due if now_ms - at_ms - schedule.jitter_of(at_ms) <= schedule.grace_ms]
    late = due[: len(due) - len(on_time)]
    if schedule.catch_up == "all":
        fire = due
    elif schedule.catch_up == "latest" and not on_time:
        fire = late[-1:]
    else:
        fire = on_time
    missed = next((at_ms for at_ms in reversed(due) if at_ms not in fire), None)
    return Turn(tuple(fire), missed, next_time(schedule.timing, schedule.created_at_ms, due[-1]))


def advanced(schedule: Schedule, done: Turn, fired: Sequence[int], skip: Incident | None, now_ms: int) -> Schedule:
    """The schedule after a turn: `fired` made jobs; `skip` is why another time made none, if that was not a miss."""
    if skip is None and done.missed is not None:
        skip = Incident(now_ms, done.missed, "missed", "nobody was there to fire it in time")
    last = fired[-1] if fired else None
    return msgspec.structs.replace(
        schedule,
        next_at_ms=done.next_at_ms,
        last_at_ms=schedule.last_at_ms if last is None else last,
        last_job_id=schedule.last_job_id if last is None else id_at(schedule, last),
        fired=schedule.fired + len(fired),
        last_error=None,
        last_skip=skip or schedule.last_skip,
    )


def _due(schedule: Schedule, now_ms: int) -> list[int]:
    """The last times that have come, 100 at the most, the oldest first.

    Looked for from the near past on: a time for each minute of a year's outage would take seconds to find.
    """
    timing, anchor_ms, first = schedule.timing, schedule.created_at_ms, schedule.next_at_ms
    assert first is not None
    back_ms = HOUR_MS if timing.interval_ms is None else timing.interval_ms * MOST_AT_ONCE
    while True:
        since = max(first, now_ms - timing.jitter_ms - back_ms)
        times = itertools.chain([first] if since == first else [], times_after(timing, anchor_ms, since))
        due = list(itertools.takewhile(lambda at_ms: at_ms + schedule.jitter_of(at_ms) <= now_ms, times))
        if since == first or len(due) >= MOST_AT_ONCE:
            return due[-MOST_AT_ONCE:]
        back_ms *= 2


def _next_interval(interval_ms: int, anchor_ms: int, start: int | None, after_ms: int) -> int | None:
    first = anchor_ms + interval_ms if start is None else start
    if after_ms < first:
        return first
    found = first + ((after_ms - first) // interval_ms + 1) * interval_ms
    return found if found < LAST_MS else None


def _parsed(text: str, param: str) -> tuple[datetime, str | None]:
    """The moment, with or without an offset, and the zone behind it."""
    plain, bracket, rest = text.partition("[")
    if bracket and not rest.endswith("]"):
        raise InvalidRequest(f"{param}: {text[:60]!r} has a zone that does not end", param=param)
    try:
        if "T" not in plain.upper():
            raise ValueError(plain)
        return datetime.fromisoformat(plain), rest[:-1] if bracket else None
    except ValueError:
        raise InvalidRequest(
            f"{param} is an instant as 2026-12-24T18:00:00+01:00, not {text[:60]!r}", param=param
        ) from None


def _in_zone(moment: datetime, timezone: str, param: str) -> int:
    """When clocks there first show it, or have leapt over it."""
    try:
        return first_instant(moment.replace(microsecond=0), zone_of(timezone)) * 1000 + moment.microsecond // 1000
    except (OverflowError, ValueError):
        raise InvalidRequest(f"{param}: {moment.isoformat()} is out of all time", param=param) from None


def _check_agrees(moment: datetime, zone: str | None, param: str) -> None:
    """An offset and a zone are one too many, and must say the same; UTC is an offset that says nothing of a zone."""
    if zone is None or moment.tzinfo is UTC:
        return
    if moment.astimezone(zone_of(zone)).utcoffset() != moment.utcoffset():
        raise InvalidRequest(f"{param}: clocks in {zone} do not show {moment.isoformat()}", param=param)


def _checked_ms(at_ms: int, param: str) -> int:
    if not 0 <= at_ms <= LAST_MS:
        raise InvalidRequest(f"{param} is from 1970 to 9986", param=param)
    return at_ms


def _ms(param: str, value_s: float, least_s: float) -> int:
    if not least_s <= value_s <= LIMIT_S:  # so written, it refuses NaN too
        raise InvalidRequest(f"{param} is {least_s:g} to {LIMIT_S:.0f} seconds, not {value_s:.12g}", param=param)
    return round(value_s * 1000)

"""When a schedule fires: intervals, bounds, jitter, what becomes of missed times; and instants as people write them."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.firing import advanced, checked_rules, instant_ms, next_time, rescheduled, times_after, turn
from ropeway.domain.job import JobOptions, NewJob
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.domain.schedule import (
    MOST_AT_ONCE,
    Plan,
    Schedule,
    Timing,
    changes_of,
    check_schedule_name,
    id_at,
    job_at,
    job_now,
    state_of,
)
from ropeway.domain.worker import TaskCard

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
MADE = 1_767_225_600_000  # 2026-01-01T00:00Z
EVERY_MINUTE = Timing(interval_ms=MINUTE)


def a_schedule(timing: Timing = EVERY_MINUTE, **fields: Any) -> Schedule:
    made = Schedule("acme", "s", "uid", timing, Plan("task"), MADE, MADE, **fields)
    return msgspec.structs.replace(made, next_at_ms=next_time(timing, MADE, MADE))


def some(timing: Timing, after_ms: int, count: int = 3) -> list[int]:
    return [at_ms - MADE for at_ms in itertools.islice(times_after(timing, MADE, after_ms), count)]


def test_an_interval_counts_from_when_it_was_made() -> None:
    """Its first time is one interval later, and its times never drift."""
    assert some(EVERY_MINUTE, MADE) == [MINUTE, 2 * MINUTE, 3 * MINUTE]
    assert some(EVERY_MINUTE, MADE + MINUTE - 1, 1) == [MINUTE]
    assert some(EVERY_MINUTE, MADE + 10 * DAY + 1, 1) == [10 * DAY + MINUTE]


def test_an_interval_with_a_start_begins_there() -> None:
    """The start is its first time, also one in the past, from which it counts."""
    assert some(Timing(interval_ms=HOUR, starts_at_ms=MADE + DAY), MADE) == [DAY, DAY + HOUR, DAY + 2 * HOUR]
    assert some(Timing(interval_ms=HOUR, starts_at_ms=MADE - MINUTE), MADE, 1) == [HOUR - MINUTE]


def test_nothing_comes_before_the_start_nor_from_the_end_on() -> None:
    """The start itself may be a time, the end may not."""
    timing = Timing(cron="0 * * * *", starts_at_ms=MADE + 2 * HOUR, ends_at_ms=MADE + 4 * HOUR)
    assert some(timing, MADE) == [2 * HOUR, 3 * HOUR]


def test_an_interval_is_no_time_of_day() -> None:
    """A day of 86,400 s goes on where clocks are changed."""
    timing = Timing(interval_ms=DAY, timezone="Europe/Berlin", starts_at_ms=MADE)
    assert some(timing, MADE + 100 * DAY, 1) == [101 * DAY]


def test_jitter_is_the_schedules_own_and_within_bounds() -> None:
    """The same time gets the same, another schedule another; none comes early."""
    timing = Timing(interval_ms=HOUR, jitter_ms=30_000)
    one, other = a_schedule(timing), msgspec.structs.replace(a_schedule(timing), uid="other")
    spread = {one.jitter_of(MADE + n) for n in range(200)}
    assert spread == {one.jitter_of(MADE + n) for n in range(200)}
    assert min(spread) >= 0
    assert max(spread) <= 30_000
    assert len(spread) > 100
    assert [one.jitter_of(n) for n in range(5)] != [other.jitter_of(n) for n in range(5)]
    assert turn(one, MADE + HOUR + one.jitter_of(MADE + HOUR) - 1) is None
    assert turn(one, MADE + HOUR + one.jitter_of(MADE + HOUR)) is not None


# -- times that have passed


def fired(schedule: Schedule, after_ms: int) -> tuple[list[int], int | None]:
    """Which times make jobs so long after it was made, in minutes, and the last that did not."""
    due = turn(schedule, MADE + after_ms)
    assert due is not None
    assert due.next_at_ms == MADE + (after_ms // MINUTE + 1) * MINUTE
    return [(at_ms - MADE) // MINUTE for at_ms in due.fire], None if due.missed is None else (
        due.missed - MADE
    ) // MINUTE


def test_nothing_is_due_before_its_time_nor_while_paused() -> None:
    """To the millisecond."""
    assert turn(a_schedule(), MADE + MINUTE - 1) is None
    assert fired(a_schedule(), MINUTE) == ([1], None)
    assert turn(msgspec.structs.replace(a_schedule(), paused=True), MADE + DAY) is None


@pytest.mark.parametrize(
    ("catch_up", "expected"), [("skip", ([], 10)), ("latest", ([10], 9)), ("all", (list(range(1, 11)), None))]
)
def test_after_an_outage(catch_up: str, expected: tuple[list[int], int | None]) -> None:
    """Ten times passed unseen, the last longer ago than the grace: none, one for all, or each."""
    assert fired(a_schedule(catch_up=catch_up, grace_ms=1_000), 10 * MINUTE + 30_000) == expected


@pytest.mark.parametrize(("catch_up", "expected"), [("skip", [9, 10]), ("latest", [9, 10]), ("all", [9, 10])])
def test_what_comes_within_the_grace_was_not_missed(catch_up: str, expected: list[int]) -> None:
    """Each of those times makes its own job, whatever becomes of missed ones."""
    due = fired(a_schedule(catch_up=catch_up, grace_ms=90_000), 10 * MINUTE + 30_000)[0]
    assert due[-2:] == expected


def test_one_on_time_stands_for_the_missed_ones() -> None:
    """`latest` makes one job, not one for the past and one for now."""
    assert fired(a_schedule(catch_up="latest", grace_ms=1_000), 10 * MINUTE) == ([10], 9)


@pytest.mark.parametrize("timing", [Timing(interval_ms=1_000), Timing(cron="* * * * *")], ids=["interval", "cron"])
def test_of_a_long_outage_the_last_hundred_count(timing: Timing) -> None:
    """And are found in no time: a year of seconds is not walked through."""
    due = turn(a_schedule(timing, catch_up="all", grace_ms=0), MADE + 365 * DAY)
    assert due is not None
    assert len(due.fire) == MOST_AT_ONCE
    assert due.fire[-1] == MADE + 365 * DAY


def test_a_rare_time_is_found_after_a_long_outage() -> None:
    """Also where the near past has none."""
    due = turn(a_schedule(Timing(cron="0 0 1 * *"), catch_up="all", grace_ms=0), MADE + 100 * DAY)
    assert due is not None
    assert [datetime.fromtimestamp(at_ms / 1000, UTC).month for at_ms in due.fire] == [2, 3, 4]


def test_after_its_end_there_is_no_next_time() -> None:
    """The last one still comes."""
    due = turn(a_schedule(Timing(interval_ms=MINUTE, ends_at_ms=MADE + 3 * MINUTE)), MADE + 2 * MINUTE)
    assert due is not None
    assert (due.fire[-1], due.next_at_ms) == (MADE + 2 * MINUTE, None)


def test_progress_is_kept() -> None:
    """What fired, what was missed, and that the error is over."""
    schedule = a_schedule(catch_up="latest", grace_ms=0)
    due = turn(schedule, MADE + 5 * MINUTE + 1)
    assert due is not None
    after = advanced(schedule, due, due.fire, None, MADE + 5 * MINUTE + 1)
    assert (after.fired, after.last_at_ms, after.next_at_ms) == (1, MADE + 5 * MINUTE, MADE + 6 * MINUTE)
    assert after.last_job_id == id_at(schedule, MADE + 5 * MINUTE)
    assert after.last_skip is not None
    assert (after.last_skip.code, after.last_skip.fire_at_ms) == ("missed", MADE + 4 * MINUTE)


def test_a_time_that_made_its_job_does_not_come_again() -> None:
    """Though the engine's clock was set back when the schedule is changed."""
    done = msgspec.structs.replace(a_schedule(), last_at_ms=MADE + 10 * MINUTE)
    assert rescheduled(done, EVERY_MINUTE, MADE + 5 * MINUTE).next_at_ms == MADE + 11 * MINUTE


# -- jobs

CARD = TaskCard("task", queue="q", options=JobOptions(timeout_s=10, tags=("own",)), priority=Priority.high)


def test_a_time_makes_the_same_job_each_time_it_is_asked() -> None:
    """Id and idempotency key come from the schedule and the time; another schedule of the name has others."""
    schedule = a_schedule()
    first, again, later = job_at(schedule, CARD, MADE), job_at(schedule, CARD, MADE), job_at(schedule, CARD, MADE + 1)
    assert first == again
    assert first.id != later.id
    assert first.idempotency_key != later.idempotency_key
    other = job_at(msgspec.structs.replace(schedule, uid="another"), CARD, MADE)
    assert {first.id, first.idempotency_key}.isdisjoint({other.id, other.idempotency_key})


def test_what_a_schedule_does_not_say_is_as_the_task_declares_it_by_then() -> None:
    """A plan keeps only what differs, so that a deploy with another timeout counts."""
    said = JobOptions(timeout_s=10, tags=("own", "mine"), retry=Retry(max_attempts=7))
    job = NewJob("", "acme", "q", "task", '{"x":1}', Priority.low, 5_000, said)
    plan = changes_of(CARD, job)
    assert (plan.queue, plan.priority, plan.delay_ms) == (None, Priority.low, 5_000)
    assert sorted(plan.options) == ["retry", "tags"]
    schedule = msgspec.structs.replace(a_schedule(), plan=msgspec.json.decode(msgspec.json.encode(plan), type=Plan))
    later = msgspec.structs.replace(CARD, queue="other", options=JobOptions(timeout_s=99, cost=3))
    made = job_now(schedule, later, "job_1", MADE)
    assert (made.queue, made.priority, made.delay_ms, made.input) == ("other", Priority.low, 5_000, '{"x":1}')
    assert (made.options.timeout_s, made.options.cost, made.options.retry.max_attempts) == (99, 3, 7)
    assert made.options.tags == ("own", "mine", "schedule:s")
    assert made.options.metadata == {"schedule": "s", "scheduled_for": "2026-01-01T00:00:00.000Z"}


def test_a_state_says_why_nothing_comes() -> None:
    """Paused, ended, or declared by no worker now."""
    schedule = a_schedule()
    assert state_of(schedule, frozenset()) == "active"
    assert state_of(msgspec.structs.replace(schedule, paused=True), frozenset()) == "paused"
    assert state_of(msgspec.structs.replace(schedule, next_at_ms=None), frozenset()) == "ended"
    declared = msgspec.structs.replace(schedule, declared=True)
    assert [state_of(declared, frozenset(ids)) for ids in ((), ("acme/s",))] == ["undeclared", "active"]


# -- as people say it


@pytest.mark.parametrize(
    ("told", "zone", "expected"),
    [
        ("2026-03-29T12:00:00Z", None, "2026-03-29T12:00+00:00"),
        ("2026-03-29T12:00:00+02:00", "Asia/Tokyo", "2026-03-29T10:00+00:00"),
        ("2026-03-29T12:00", "Europe/Berlin", "2026-03-29T10:00+00:00"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:00+00:00"),
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30+00:00"),
        ("2026-12-24T18:00:00[Europe/Berlin]", None, "2026-12-24T17:00+00:00"),
        ("2026-12-24T18:00:00+01:00[Europe/Berlin]", None, "2026-12-24T17:00+00:00"),
        ("2026-12-24T18:00:00Z[Europe/Berlin]", None, "2026-12-24T18:00+00:00"),
        (datetime(2026, 12, 24, 18, tzinfo=ZoneInfo("America/New_York")), None, "2026-12-24T23:00+00:00"),
        (datetime(2026, 12, 24, 18), "America/New_York", "2026-12-24T23:00+00:00"),
    ],
    ids=str,
)
def test_an_instant_as_it_is_written(told: Any, zone: str | None, expected: str) -> None:
    """RFC 3339, or with a zone behind it (RFC 9557); without an offset, in the zone that there is."""
    assert instant_ms(told, zone, "at") == datetime.fromisoformat(expected).timestamp() * 1000


@pytest.mark.parametrize(
    "told",
    [
        "2026-12-24T18:00:00",
        "2026-12-24",
        "soon",
        "",
        "2026-12-24T18:00[Mars/Base]",
        "2026-12-24T18:00+05:00[Europe/Berlin]",
        "2026-12-24T18:00[Europe/Berlin",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:00",
        "0001-01-01T00:00[Asia/Tokyo]",
    ],
)
def test_what_is_no_instant_is_refused(told: str) -> None:
    """With what it should look like; an offset and a zone that disagree are no instant."""
    with pytest.raises(InvalidRequest):
        instant_ms(told, None, "at")


@pytest.mark.parametrize(
    ("told", "param"),
    [
        ({}, "cron"),
        ({"cron": "* * * * *", "interval": 5}, "cron"),
        ({"interval": 0.5}, "interval"),
        ({"interval": float("nan")}, "interval"),
        ({"interval": 1e9}, "interval"),
        ({"interval": 5, "jitter": -1}, "jitter"),
        ({"interval": 5, "grace": float("inf")}, "grace"),
        ({"interval": 5, "catch_up": "no"}, "catch_up"),
        ({"interval": 5, "overlap": "no"}, "overlap"),
        ({"interval": 5, "starts_at": "2026-01-02T00:00Z", "ends_at": "2026-01-02T00:00Z"}, "ends_at"),
    ],
    ids=str,
)
def test_rules_that_cannot_be_are_refused(told: Any, param: str) -> None:
    """Each names the setting that is wrong."""
    with pytest.raises(InvalidRequest) as refused:
        checked_rules(told)
    assert refused.value.param == param


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a b", "x" * 101, "ä"])
def test_a_name_that_goes_into_no_key_is_refused(name: str) -> None:
    """It is part of a record's id and of a path."""
    with pytest.raises(InvalidRequest, match="no name of a schedule"):
        check_schedule_name(name)
    assert check_schedule_name("a.b_c-1") == "a.b_c-1"


def test_options_that_are_none_any_more_are_told() -> None:
    """A record that another version wrote: its jobs are refused, with why."""
    schedule = msgspec.structs.replace(a_schedule(), plan=Plan("task", options={"timeout_s": "long"}))
    with pytest.raises(InvalidRequest, match="options that are none"):
        job_at(schedule, CARD, MADE)
    unknown = msgspec.structs.replace(a_schedule(), plan=Plan("task", options={"from_the_future": 1}))
    assert job_at(unknown, CARD, MADE).options.timeout_s == 10

"""Cron expressions: what is refused, and when the next time is where clocks are changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropeway.domain.cron import Cron, zone_of
from ropeway.domain.errors import InvalidRequest


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def times(cron: str, zone: str, since: str, until: str) -> list[str]:
    """The times strictly after one instant and before another, as clocks in the zone show them."""
    return [
        datetime.fromtimestamp(at_s, zone_of(zone)).isoformat(sep=" ", timespec="minutes")
        for at_s in each(cron, zone, instant(since), instant(until))
    ]


def each(cron: str, zone: str, at_s: int, until_s: int) -> Iterator[int]:
    while (found := Cron(cron).after(at_s, zone_of(zone))) is not None and found < until_s:
        assert found > at_s
        yield found
        at_s = found


# -- the spring: 2026-03-29 02:00 -> 03:00 in Berlin, 2026-03-08 02:00 -> 03:00 in New York

BERLIN_LEAP = ("Europe/Berlin", "2026-03-28T12:00+01:00", "2026-03-30T12:00+02:00")
NEW_YORK_LEAP = ("America/New_York", "2026-03-07T12:00-05:00", "2026-03-09T12:00-04:00")


def test_a_fixed_time_that_is_leapt_over_comes_right_after() -> None:
    """It is not lost: 02:30 is 03:00 that day."""
    assert times("30 2 * * *", *BERLIN_LEAP) == ["2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"]
    assert times("30 2 * * *", *NEW_YORK_LEAP) == ["2026-03-08 03:00-04:00", "2026-03-09 02:30-04:00"]


def test_several_fixed_times_in_the_gap_come_once() -> None:
    """They are one instant, and so one time; what is fixed right after keeps its own."""
    assert times("15,45 2 * * *", *BERLIN_LEAP)[:1] == ["2026-03-29 03:00+02:00"]
    assert times("0 2,3 * * *", *NEW_YORK_LEAP)[:2] == ["2026-03-08 03:00-04:00", "2026-03-09 02:00-04:00"]


def test_a_running_time_that_is_leapt_over_is_not_there() -> None:
    """Each quarter of an hour is a quarter of an hour after the one before."""
    night = ("2026-03-29T01:20+01:00", "2026-03-29T03:20+02:00")
    assert times("*/15 * * * *", "Europe/Berlin", *night) == [
        "2026-03-29 01:30+01:00",
        "2026-03-29 01:45+01:00",
        "2026-03-29 03:00+02:00",
        "2026-03-29 03:15+02:00",
    ]
    assert times("*/30 2 * * *", *NEW_YORK_LEAP) == ["2026-03-09 02:00-04:00", "2026-03-09 02:30-04:00"]


# -- the autumn: 2026-10-25 03:00 -> 02:00 in Berlin, 2026-11-01 02:00 -> 01:00 in New York


def test_a_fixed_time_that_comes_twice_is_the_first() -> None:
    """It is meant once a day."""
    berlin = ("Europe/Berlin", "2026-10-24T12:00+02:00", "2026-10-26T12:00+01:00")
    assert times("30 2 * * *", *berlin) == ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]
    york = ("America/New_York", "2026-10-31T12:00-04:00", "2026-11-02T12:00-05:00")
    assert times("30 1 * * *", *york) == ["2026-11-01 01:30-04:00", "2026-11-02 01:30-05:00"]


def test_a_fixed_time_does_not_come_again_to_who_asks_in_the_second_pass() -> None:
    """Asked at 02:10 the second time, the next 02:30 is tomorrow's."""
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-25T02:10+01:00", "2026-10-26T12:00+01:00") == [
        "2026-10-26 02:30+01:00"
    ]


def test_a_running_time_that_comes_twice_is_twice() -> None:
    """An hourly one misses no hour, and has none too much between two."""
    night = ("2026-10-25T01:30+02:00", "2026-10-25T03:30+01:00")
    assert times("0 * * * *", "Europe/Berlin", *night) == [
        "2026-10-25 02:00+02:00",
        "2026-10-25 02:00+01:00",
        "2026-10-25 03:00+01:00",
    ]
    assert times("0 */1 * * *", "America/New_York", "2026-11-01T00:30-04:00", "2026-11-01T02:30-05:00") == [
        "2026-11-01 01:00-04:00",
        "2026-11-01 01:00-05:00",
        "2026-11-01 02:00-05:00",
    ]


def test_clocks_that_change_by_half_an_hour() -> None:
    """On Lord Howe Island 02:00 becomes 02:30: a running time is a half hour nearer, and no hour is lost."""
    night = ("2026-10-04T01:00+10:30", "2026-10-04T04:10+11:00")
    assert times("0 * * * *", "Australia/Lord_Howe", *night) == ["2026-10-04 03:00+11:00", "2026-10-04 04:00+11:00"]
    assert times("15 2 * * *", "Australia/Lord_Howe", *night) == ["2026-10-04 02:30+11:00"]


def test_a_day_that_a_zone_left_out() -> None:
    """Samoa had no 30 December 2011: its fixed times came at the first instant of the 31st."""
    assert times("30 9 * * *", "Pacific/Apia", "2011-12-29T12:00-10:00", "2011-12-31T12:00+14:00") == [
        "2011-12-31 00:00+14:00",
        "2011-12-31 09:30+14:00",
    ]


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Africa/Casablanca")


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(["* * * * *", "*/15 * * * *", "30 * * * *", "0 */3 * * *", "*/7 1-3 * * *", "5 * * * 0"]),
    st.sampled_from([(month, day) for month in (2, 3, 4, 10, 11) for day in (1, 8, 14, 21, 25, 28)]),
)
def test_running_times_are_the_minutes_that_clocks_show(zone: str, cron: str, when: tuple[int, int]) -> None:
    """Beside a search through every minute of two days: nothing is left out, and nothing added."""
    minutes, hours, weekdays = _sets(cron)
    start = int(datetime(2026, *when, tzinfo=UTC).timestamp())
    expected = []
    for at_s in range(start, start + 2 * 86_400, 60):
        shown = datetime.fromtimestamp(at_s, zone_of(zone))
        if shown.minute in minutes and shown.hour in hours and shown.isoweekday() % 7 in weekdays:
            expected.append(at_s)
    assert list(each(cron, zone, start - 1, start + 2 * 86_400)) == expected


def _sets(cron: str) -> tuple[set[int], set[int], set[int]]:
    """The fields of the expressions above."""
    minute, hour, *_, weekday = cron.split()
    return _set(minute, 60), _set(hour, 24), _set(weekday, 7)


def _set(field: str, size: int) -> set[int]:
    whole, _, step = field.partition("/")
    low, _, high = whole.partition("-")
    if whole == "*":
        return set(range(0, size, int(step or 1)))
    return set(range(int(low), int(high or low) + 1, int(step or 1)))


# -- expressions


def test_words_and_the_far_future() -> None:
    """`@daily` and its like are what they are everywhere; a leap day waits for its year."""
    assert times("@daily", "UTC", "2026-01-01T00:00+00:00", "2026-01-03T01:00+00:00") == [
        "2026-01-02 00:00+00:00",
        "2026-01-03 00:00+00:00",
    ]
    assert times("0 0 29 2 *", "UTC", "2026-01-01T00:00+00:00", "2030-01-01T00:00+00:00") == ["2028-02-29 00:00+00:00"]
    assert times("0 12 * * MON#1", "UTC", "2026-01-01T00:00+00:00", "2026-02-01T00:00+00:00") == [
        "2026-01-05 12:00+00:00"
    ]
    assert Cron("@yearly").after(10**12, zone_of("UTC")) is None


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "x * * * *", "*/0 * * * *", "0 0 30 2 *", "@reboot",
     "5-1 * * * *", "1#1/2 * * * *", "* * * * 1#1/2", "* * * * L", "0 0 31 2 *", "٣ * * * *", "1 " * 200, "-1 * * * *",
     "9" * 150 + " * * * *"],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text: str) -> None:
    """As InvalidRequest of `cron`, whatever is wrong with it."""
    with pytest.raises(InvalidRequest, match="cron") as refused:
        Cron(text)
    assert refused.value.param == "cron"


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("0123456789*/-,#LW MONSUJAN"), max_size=30))
def test_no_text_breaks_the_reading(text: str) -> None:
    """It is an expression with a next time, or it is refused."""
    try:
        cron = Cron(text)
    except InvalidRequest:
        return
    found = cron.after(1_700_000_000, zone_of("Europe/Berlin"))
    assert found is None or found > 1_700_000_000


@pytest.mark.parametrize(
    "name", ["", "Europe", "Europe/Nowhere", "../etc/passwd", "/etc/passwd", "x" * 65, "Ä", "A\0B"]
)
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    """A name of the IANA database, and no path out of it."""
    with pytest.raises(InvalidRequest, match="no time zone"):
        zone_of(name)


def test_an_expression_that_never_comes_is_refused() -> None:
    """The first of a month is no third Monday: found out when it is set, not by waiting."""
    with pytest.raises(InvalidRequest, match="never comes"):
        Cron("0 0 */31 * MON#3")


@pytest.mark.parametrize("cron", ["30 2 * * *", "* * * * *"])
def test_beyond_all_years_there_is_no_next_time(cron: str) -> None:
    """Neither before the first nor after the last that a date has."""
    for at_s in (-(10**11), 253_000_000_000, 252_999_999_999, 10**15):
        assert Cron(cron).after(at_s, zone_of("Asia/Tokyo")) is None

"""The ids of events, which are readers' cursors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.event import QUEUED_AT, START, Cursor, Event

numbers = st.integers(0, 10**18)


@given(numbers, numbers)
def test_a_cursor_is_its_text(epoch: int, seq: int) -> None:
    """What `str` gives, `parse` takes back."""
    cursor = Cursor(epoch, seq)
    assert Cursor.parse(str(cursor)) == cursor


@given(st.lists(st.tuples(numbers, numbers)))
def test_cursors_are_ordered_as_the_log_is(pairs: list[tuple[int, int]]) -> None:
    """By epoch, then by the number in it: as numbers, not as text."""
    assert sorted(Cursor(*pair) for pair in pairs) == [Cursor(*pair) for pair in sorted(pairs)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "1",
        "1-",
        "-1",
        "1-2-3",
        "a-1",
        "1-b",
        "+1-2",
        "1- 2",
        " 1-2",
        "1-2\n",
        "1_0-2",
        "१-२",
        "²-1",
        "9" * 40 + "-1",
    ],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """Anything else raises InvalidRequest, which names the parameter and not more than a part of the text."""
    with pytest.raises(InvalidRequest) as refusal:
        Cursor.parse(text)
    assert refusal.value.param == "after"
    assert len(refusal.value.detail) < 80


def test_every_log_begins_after_the_start() -> None:
    """`0-0` is before the first event of any job, which is `0-1`."""
    assert (str(START), str(QUEUED_AT)) == ("0-0", "0-1")
    assert START < QUEUED_AT < Cursor(1, 0)


def test_an_event_is_known_by_its_cursor() -> None:
    """An event's id is its cursor's text, and `seq` the number in it."""
    event = Event(Cursor(7, 3), "log", "job_1", 1, 0, "null")
    assert (event.id, event.seq) == ("7-3", 3)

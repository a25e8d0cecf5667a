"""Who runs next, as one number."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropeway.domain.rank import BAND_WIDTH, Priority, place, rank_of, start_of


def test_a_tenants_jobs_follow_each_other() -> None:
    """Each job starts where the one before it finishes: its cost over the tenant's weight further on."""
    finish, starts = 0.0, []
    for cost in (1.0, 3.0, 1.0):
        start, finish = place(0.0, finish, cost, weight=2.0)
        starts.append(start)
    assert (starts, finish) == ([0.0, 0.5, 2.0], 2.5)


def test_who_was_away_starts_at_virtual_time() -> None:
    """Time away is neither saved up nor held against anyone."""
    assert place(virtual_time=40.0, last_finish=7.0, cost=1.0, weight=1.0) == (40.0, 41.0)
    assert place(virtual_time=40.0, last_finish=90.0, cost=1.0, weight=1.0) == (90.0, 91.0)


def test_bands_are_strict() -> None:
    """Any job of a higher priority ranks before every job of a lower one."""
    far = BAND_WIDTH - 1
    ranks = [rank_of(priority, start) for priority in reversed(Priority) for start in (0.0, far)]
    assert all(first < second for first, second in pairwise(ranks))


@pytest.mark.parametrize("priority", Priority)
@given(start=st.integers(0, 10**15).map(lambda n: n / 1024))
def test_a_rank_holds_its_start_tag(priority: Priority, start: float) -> None:
    """The start tag comes back out of a rank, in every band, to a small part of a unit of cost."""
    assert abs(start_of(rank_of(priority, start)) - start) < 1e-3


def test_priorities_are_found_as_keys() -> None:
    """A priority is the number that it equals, as a key too."""
    assert {Priority.high: "h"}[2] == "h"  # type: ignore[index]

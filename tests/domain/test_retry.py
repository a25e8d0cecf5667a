"""When a failed attempt is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropeway.domain.retry import Retry, backoff_s

policies = st.builds(
    Retry,
    max_attempts=st.integers(1, 1000),
    base_s=st.floats(0, 10),
    factor=st.floats(1, 100),
    cap_s=st.floats(10, 1000),
)


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 2.0), (2, 6.0), (3, 18.0), (4, 20.0), (5, 20.0)])
def test_the_ceiling_grows_to_its_cap(attempt: int, ceiling: float) -> None:
    """The longest wait is the base times the factor for each attempt before, and never above the cap."""
    policy = Retry(base_s=2, factor=3, cap_s=20)
    assert backoff_s(policy, attempt, 0.5) == ceiling / 2


def test_jitter_is_full() -> None:
    """The wait is anywhere from nothing to the ceiling, in proportion to the jitter."""
    policy = Retry(base_s=8)
    assert [backoff_s(policy, 1, jitter) for jitter in (0.0, 0.25, 0.75)] == [0.0, 2.0, 6.0]


@pytest.mark.parametrize(("asked", "expected"), [(None, 4.0), (0.0, 4.0), (3.9, 4.0), (60.0, 60.0)])
def test_a_providers_wait_is_a_floor(asked: float | None, expected: float) -> None:
    """A provider's own `retry_after_s` lengthens the wait, above any cap, and never shortens it."""
    policy = Retry(base_s=8, cap_s=10)
    assert backoff_s(policy, 1, 0.5, asked) == expected


@given(policies, st.integers(1, 1_000_000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_within_its_bounds(policy: Retry, attempt: int, jitter: float) -> None:
    """However many attempts there were, the wait is a number from 0 to the cap."""
    assert 0 <= backoff_s(policy, attempt, jitter) <= policy.cap_s


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 1001),
        ("base_s", -1.0),
        ("base_s", 301.0),
        ("base_s", float("nan")),
        ("cap_s", 0.5),
        ("cap_s", 2_592_001.0),
        ("factor", 0.5),
        ("factor", 101.0),
        ("factor", float("nan")),
    ],
)
def test_a_policy_out_of_range_is_refused(field: str, value: float) -> None:
    """A policy that makes no sense raises ValueError where it is made."""
    with pytest.raises(ValueError, match=field):
        Retry(**{field: value})  # type: ignore[arg-type]


def test_a_schedule_says_the_waits_themselves() -> None:
    """One for each failure, the last for all after it, each up to a tenth longer; a provider's wish is a floor."""
    policy = Retry(max_attempts=10, schedule_s=(5, 60))
    assert [backoff_s(policy, attempt, 0.0) for attempt in (1, 2, 3, 9)] == [5, 60, 60, 60]
    assert backoff_s(policy, 1, 0.999) == pytest.approx(5.4995)
    assert [backoff_s(policy, 1, 0.0, asked) for asked in (1, 600)] == [5, 600]
    for wrong in ((-1,), (float("nan"),), (31 * 86_400,), (1.0,) * 1001):
        with pytest.raises(ValueError, match="schedule_s"):
            Retry(schedule_s=wrong)

"""The rules of limits: who may start, what that takes, and what becomes of it afterwards."""

from __future__ import annotations

import pytest

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.limit import (
    FOR_A_SLOT,
    Limit,
    LimitPolicy,
    LimitSignal,
    LimitState,
    check_limits,
    check_policies,
    finished,
    signalled,
    started,
    taken_by,
    wait_ms,
)

NOW = 1_000_000
RATE = Limit("k", per_s=2.0, burst=4.0)
TOKENS = Limit("k", per_s=10.0, burst=100.0, amount=60.0, measure="tokens")


def after_starts(limit: Limit, count: int) -> LimitState:
    state = LimitState(limit.key)
    for _ in range(count):
        state = started(limit, state, NOW)
    return state


def test_a_place_is_free_or_not() -> None:
    """As many as `max_running` start; the next waits for an end and for no time."""
    limit = Limit("k", max_running=2)
    assert wait_ms(limit, after_starts(limit, 1), NOW) is None
    full = after_starts(limit, 2)
    assert wait_ms(limit, full, NOW) == FOR_A_SLOT
    assert wait_ms(limit, finished(limit, full, NOW, None), NOW) is None


def test_a_bucket_begins_full_and_refills() -> None:
    """The wait is to the millisecond, and over when it is."""
    empty = after_starts(RATE, 4)
    assert wait_ms(RATE, empty, NOW) == NOW + 500
    assert wait_ms(RATE, empty, NOW + 499) == NOW + 500
    assert wait_ms(RATE, empty, NOW + 500) is None
    assert empty.at(RATE, NOW + 2_000) == LimitState("k", running=4), "full again: nothing is to be remembered"


def test_a_clock_that_went_back_refills_nothing() -> None:
    """Neither now nor when it comes to the same time again."""
    empty = after_starts(RATE, 4)
    again = finished(RATE, empty, NOW - 5_000, None)
    assert (again.level, again.at_ms) == (0.0, NOW)
    assert wait_ms(RATE, again, NOW) == NOW + 500


def test_what_was_measured_replaces_what_was_thought() -> None:
    """Too much goes back, too little is owed; who does not know changes nothing."""
    state = started(TOKENS, LimitState("k"), NOW)
    assert state.level == 40.0
    levels = {took: finished(TOKENS, state, NOW, took).level for took in (None, 60.0, 20.0, 150.0, 0.0)}
    assert levels == {None: 40.0, 60.0: 40.0, 20.0: 80.0, 150.0: -50.0, 0.0: None}


@pytest.mark.parametrize(
    ("outcome", "usage", "took"),
    [
        ("succeeded", '{"input_tokens":10,"output_tokens":5}', 15.0),
        ("retry", '{"output_tokens":5}', 5.0),
        ("failed", '{"total_tokens":7}', 7.0),
        ("succeeded", '{"pages":7}', None),
        ("succeeded", None, None),
        ("lost", None, None),
        ("release", None, 0.0),
        ("snooze", '{"input_tokens":10}', 0.0),
    ],
)
def test_what_an_attempt_took(outcome: str, usage: str | None, took: float | None) -> None:
    """Its tokens, where it told of them; nothing, when it runs again as if it had not."""
    assert taken_by(TOKENS, outcome, usage) == took


def test_what_is_not_measured_took_what_was_thought() -> None:
    """Also when the job used tokens; but what was given back took nothing of any limit."""
    assert taken_by(RATE, "succeeded", '{"input_tokens":10}') is None
    assert taken_by(RATE, "release", None) == 0.0


def test_a_provider_lowers_and_pauses() -> None:
    """It never raises what is believed to be left; of two pauses the longer counts."""
    state = signalled(LimitSignal(RATE, left=1.0, pause_ms=800), LimitState("k"), NOW)
    assert (state.level, wait_ms(RATE, state, NOW)) == (1.0, NOW + 800)
    state = signalled(LimitSignal(RATE, left=3.0, pause_ms=100), state, NOW)
    assert (state.level, state.paused_until_ms) == (1.0, NOW + 800)
    assert wait_ms(RATE, state, NOW + 800) is None
    assert signalled(LimitSignal(RATE, left=9.0), LimitState("k"), NOW) == LimitState("k")


def test_a_policy_counts_instead() -> None:
    """Both ways; an empty one is no limit at all."""
    full = after_starts(RATE, 4)
    for policy, wait in ((LimitPolicy(), None), (LimitPolicy(max_running=4), FOR_A_SLOT), (LimitPolicy(5), None)):
        ruled = LimitState("k", full.running, full.level, full.at_ms, policy=policy)
        assert wait_ms(RATE, ruled, NOW) == wait


@pytest.mark.parametrize(
    "limits",
    [
        [Limit("")],
        [Limit("a b")],
        [Limit("x" * 256)],
        [Limit("k"), Limit("k")],
        [Limit(f"k{n}") for n in range(9)],
        [Limit("k", max_running=0)],
        [Limit("k", per_s=1.0)],
        [Limit("k", burst=1.0)],
        [Limit("k", per_s=0.0, burst=1.0)],
        [Limit("k", per_s=float("nan"), burst=1.0)],
        [Limit("k", per_s=1.0, burst=float("inf"))],
        [Limit("k", amount=0.0)],
        [Limit("k", amount=float("nan"))],
        [Limit("k", measure="pages")],
    ],
)
def test_limits_that_cannot_be(limits: list[Limit]) -> None:
    """Each is refused, with the field's name."""
    with pytest.raises(InvalidRequest) as refused:
        check_limits(limits)
    assert refused.value.param == "limits"


def test_policies_that_cannot_be() -> None:
    """A bad key or number; None is for no policy."""
    check_policies({"k": LimitPolicy(3, 1.0, 2.0), "other": None})
    for key, policy in (("a b", None), ("k", LimitPolicy(max_running=-1)), ("k", LimitPolicy(burst=3.0))):
        with pytest.raises(InvalidRequest):
            check_policies({key: policy})

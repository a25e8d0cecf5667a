"""The states of a job and the only ways between them."""

from __future__ import annotations

import pytest

from ropeway.domain.lifecycle import TERMINAL, TRANSITIONS, WAITING, State, may_become

ARROWS = {
    ("scheduled", "queued"),
    ("scheduled", "cancelled"),
    ("scheduled", "failed"),
    ("queued", "running"),
    ("queued", "cancelled"),
    ("queued", "failed"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("running", "scheduled"),
    ("running", "queued"),
}


@pytest.mark.parametrize("old", State)
@pytest.mark.parametrize("new", State)
def test_the_table_has_these_arrows_and_no_other(old: State, new: State) -> None:
    """Each pair of states is either an arrow of the picture or impossible."""
    assert may_become(old, new) is ((old.value, new.value) in ARROWS)


def test_a_terminal_state_is_final() -> None:
    """No arrow leaves a terminal state, and every other state has one."""
    assert {state for state in State if not TRANSITIONS[state]} == TERMINAL
    assert {state for state in State if state.terminal} == TERMINAL


def test_each_state_is_of_one_kind() -> None:
    """A job waits, runs, or has ended."""
    assert WAITING | {State.running} | TERMINAL == set(State)
    assert not WAITING & TERMINAL


def test_states_are_found_by_their_names() -> None:
    """A state is the text that it is stored as, as a key too."""
    assert {State.queued: 1}["queued"] == 1  # type: ignore[index]

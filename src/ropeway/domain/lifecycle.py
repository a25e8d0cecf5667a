"""The states of a job and the only ways between them.

    submit   -> scheduled | queued
    promote  scheduled -> queued;   queued past its queue timeout -> failed
    lease    queued -> running, attempt + 1
    commit   running -> succeeded | failed | cancelled | scheduled (retry) | queued (released)
    cancel   scheduled | queued -> cancelled;   running -> asked, then cancelled at commit or rescue
    rescue   running, its worker gone -> queued | scheduled | failed | cancelled

A terminal state is final: `retry` makes a new job that names the old one in `retry_of`.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TERMINAL", "TRANSITIONS", "WAITING", "State", "may_become"]


class State(StrEnum):
    """Where a job stands."""

    scheduled = "scheduled"
    queued = "queued"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"

    __hash__ = str.__hash__  # Enum's own is written in Python, and states are dict keys on every hot path

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({State.succeeded, State.failed, State.cancelled})
WAITING = frozenset({State.scheduled, State.queued})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.scheduled: frozenset({State.queued, State.cancelled, State.failed}),
    State.queued: frozenset({State.running, State.cancelled, State.failed}),
    State.running: frozenset({State.succeeded, State.failed, State.cancelled, State.scheduled, State.queued}),
    State.succeeded: frozenset(),
    State.failed: frozenset(),
    State.cancelled: frozenset(),
}


def may_become(old: State, new: State) -> bool:
    """Whether the state table has an arrow from `old` to `new`."""
    return new in TRANSITIONS[old]

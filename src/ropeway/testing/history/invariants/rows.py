"""What must be true of rows: arrows between states, versions, ends that stay, stores that a crash leaves whole."""

from __future__ import annotations

from collections.abc import Iterator

from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State, may_become
from ropeway.testing.history.facts import Change, Facts
from ropeway.testing.history.record import Violation

__all__ = ["crashes_leave_all", "ends_are_final", "no_call_breaks", "states_follow_their_arrows", "versions_tell"]


def ends_are_final(facts: Facts) -> Iterator[Violation]:
    """A1: the row of a job that has ended never changes again."""
    for moment in facts.moments:
        for old, new in moment.changes:
            if old is not None and new is not None and old.state.terminal:
                yield Violation(
                    "A1", moment.step.number, f"{old.id} was {old.state} and changed: {_difference(old, new)}"
                )


def states_follow_their_arrows(facts: Facts) -> Iterator[Violation]:
    """A2: a job comes in queued or scheduled, and one call alone takes it along one arrow of the state table."""
    for moment in facts.moments:
        alone = moment.step.only is not None
        for old, new in moment.changes:
            if old is None and new is not None and alone and new.state not in (State.queued, State.scheduled):
                yield Violation("A2", moment.step.number, f"{new.id} came in {new.state}")
            if old is None or new is None or old.state is new.state or old.state.terminal:
                continue
            if alone and not may_become(old.state, new.state):
                yield Violation("A2", moment.step.number, f"{old.id} went from {old.state} to {new.state}")


def versions_tell(facts: Facts) -> Iterator[Violation]:
    """A3: a row that changed has a higher version, and its log's last event is never an earlier one."""
    for moment in facts.moments:
        for old, new in moment.changes:
            if old is None or new is None:
                continue
            if new.version <= old.version:
                text = f"{old.id} changed under version {new.version}: {_difference(old, new)}"
                yield Violation("A3", moment.step.number, text)
            if new.last_cursor < old.last_cursor:
                text = f"the log of {old.id} went back from {old.last_cursor} to {new.last_cursor}"
                yield Violation("A3", moment.step.number, text)


def crashes_leave_all(facts: Facts) -> Iterator[Violation]:
    """K1: a crash between calls changes nothing that was answered; one before a call is durable, nothing at all."""
    for moment in facts.moments:
        event = moment.step.event
        if event == "crash" or event.startswith("pre"):
            for change in moment.changes:
                yield Violation("K1", moment.step.number, f"a crash ({event}) changed {change.job.id}: {_told(change)}")


def no_call_breaks(facts: Facts) -> Iterator[Violation]:
    """E1: no call raises but EngineUnavailable."""
    for moment in facts.moments:
        for op in moment.step.ops:
            if op.kind == "raised":
                yield Violation("E1", moment.step.number, f"{op.call} raised {op.answer}")


def _told(change: Change) -> str:
    old, new = change
    if old is None or new is None:
        return "it is gone" if new is None else "it came"
    return _difference(old, new)


def _difference(old: Job, new: Job) -> str:
    fields = (name for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name))
    return ", ".join(f"{name} {getattr(old, name)!r} -> {getattr(new, name)!r}" for name in fields)

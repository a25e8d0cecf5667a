"""Whether calls that overlapped can be put into one order in which each answer is right: Wing and Gong, with a memo.

Source: Wing and Gong, "Testing and Verifying Concurrent Objects", 1993; Lowe's memo of (calls done, state). Run per
job: linearizability is local (Herlihy and Wing, 1990), so a history is linearizable if each job's part of it is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

__all__ = ["NEVER", "Timed", "linearizable"]

NEVER = float("inf")
"""The end of a call whose outcome is unknown: it may take effect at any time from its start on, or not at all."""


class Timed(NamedTuple):
    """A call in its time: `what` and its `answer` are for the model to judge."""

    start: float
    end: float
    what: str
    detail: Any = None
    answer: Any = None


S = TypeVar("S", bound=Hashable)


def linearizable(ops: Sequence[Timed], initial: S, step: Callable[[S, Timed], Iterable[S]]) -> bool:
    """Whether there is an order, true to real time, in which every answer is one that the model gives.

    `step` gives the states that a call may lead to from a state with this answer; none: the answer is impossible there.
    """
    seen: set[tuple[int, S]] = set()
    stack: list[tuple[int, S]] = [(0, initial)]
    while stack:
        done, state = stack.pop()
        left = [n for n in range(len(ops)) if not done >> n & 1]
        horizon = min((ops[n].end for n in left), default=NEVER)
        if horizon == NEVER:
            return True  # what is left is unknown, and need not have happened
        for n in left:
            if ops[n].start > horizon:
                continue
            for following in step(state, ops[n]):
                reached = (done | 1 << n, following)
                if reached not in seen:
                    seen.add(reached)
                    stack.append(reached)
    return False

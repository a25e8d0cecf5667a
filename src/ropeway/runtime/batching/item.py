"""One job of a batch: an attempt like any other, which waits for its call and shares it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

from ropeway.blobs.handle import attached
from ropeway.domain.lease import Assignment
from ropeway.runtime.attempt import Session
from ropeway.runtime.run import Run, Work

__all__ = ["Item", "Shared"]


class Shared(Protocol):
    """A call that an item shares."""

    def stop_if_unwanted(self) -> None: ...

    def leaves_thread(self) -> bool: ...


class Item(Run):
    """An attempt that is run together with others.

    `asked` is called when it is to stop. `arrived_s` and `number` tell since when it waits, and before whom, and
    `since_s` since when a call was free for it. `call` is the one that it was taken for. `done` tells that its part of
    that is over, though the call may go on for others: set where the call runs. `output_before` is what earlier
    attempts left of the job's output, where the task goes on from that.
    """

    __slots__ = (
        "_arguments",
        "_asked",
        "arrived_s",
        "call",
        "cost",
        "done",
        "key",
        "number",
        "output_before",
        "since_s",
    )

    def __init__(self, assignment: Assignment, session: Session, work: Work, asked: Callable[[Item], None]) -> None:
        super().__init__(assignment, session, work)
        self.key: Hashable = None
        self.cost = 0.0
        self.arrived_s = 0.0
        self.number = 0
        self.since_s = 0.0
        self.call: Shared | None = None
        self.done = False
        self.output_before: str | None = None
        self._arguments: dict[str, Any] | None = None
        self._asked = asked
        self.handle = self  # it is stopped by itself: the executor knows no other way

    def cancel(self) -> None:
        """It was asked to stop. In the loop."""
        self._asked(self)

    def leaves_thread(self) -> bool:
        return self.call is not None and self.call.leaves_thread()

    @property
    def may_run(self) -> bool:
        """Whether its code is still wanted."""
        return self.reason is None and not self.done

    def arguments(self) -> dict[str, Any]:
        """Its input, read once. Raises InputInvalid."""
        if self._arguments is None:
            read = self.work.task.input
            if self.brought is None:
                self._arguments = read.decode(self.assignment.input)
            else:
                with attached(self.brought):
                    self._arguments = read.decode_with(self.assignment.input, self.brought.values)
        return self._arguments

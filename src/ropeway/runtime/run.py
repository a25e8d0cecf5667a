"""An attempt with what runs it, and a task as one worker runs it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from ropeway.domain.lease import Assignment
from ropeway.runtime.attempt import Attempt, Session
from ropeway.runtime.feed import Feed
from ropeway.runtime.intake import Brought
from ropeway.runtime.silence import Silence
from ropeway.runtime.slots import Lane
from ropeway.runtime.task import Task

__all__ = ["Run", "Stoppable", "Work"]


class Work:
    """A task as one worker runs it: the lanes that it needs, and its resources (None: not open yet)."""

    __slots__ = ("given", "lanes", "task")

    def __init__(self, task: Task[..., Any, Any], lanes: tuple[Lane, ...]) -> None:
        self.task = task
        self.lanes = lanes
        self.given: dict[str, Any] | None = None if task.resource_names else {}


class Stoppable(Protocol):
    """Code that runs, as it is asked to stop."""

    def cancel(self) -> object: ...


class Run(Attempt):
    """An attempt with what runs it."""

    __slots__ = ("brought", "feed", "handle", "silence", "started", "timer", "work")

    def __init__(self, assignment: Assignment, session: Session, work: Work) -> None:
        super().__init__(assignment, session)
        self.work = work
        self.brought: Brought | None = None
        self.feed: Feed | None = None
        self.handle: Stoppable | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.silence: Silence | None = None
        self.started = False

    def leaves_thread(self) -> bool:
        """Whether a thread is left running for nobody, once this is given up."""
        return not self.work.task.on_loop

    def ends_by_force(self) -> bool:
        """Whether its code is being ended by force, now that it does not stop by itself: its end will be told."""
        return False

    @property
    def partial(self) -> str | None:
        """What has been produced so far, as JSON."""
        return None if self.feed is None else self.feed.output

"""What batchers use of their worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from ropeway.domain.clock import Clock
from ropeway.runtime.artifacts import Artifacts
from ropeway.runtime.attempt import Attempt, Reason
from ropeway.runtime.context import Context
from ropeway.runtime.feed import Feed
from ropeway.runtime.inbox import Inbox
from ropeway.runtime.isolation import ThreadPool
from ropeway.runtime.resources import OpenResources, ResourceFailed
from ropeway.runtime.run import Run

__all__ = ["Desk", "Source", "Timer", "Tools"]


class Source(Protocol):
    """Where jobs come from. `coming`: whether more may come that somebody has submitted already."""

    @property
    def coming(self) -> bool: ...


class Timer(Protocol):
    """Something that happens later, unless it is cancelled."""

    def cancel(self) -> object: ...


class Desk(Protocol):
    """What is done for every attempt, alone or among others; see `Executor`."""

    running: set[Run]

    def ask(self, attempt: Attempt, reason: Reason, grace_s: float | None = None) -> None: ...

    def open_feed(self, run: Run) -> None: ...

    def watch(self, run: Run) -> None: ...

    def needs(self, run: Run) -> bool: ...

    async def bring(self, run: Run) -> None: ...

    def context(self, run: Run, feed: Feed) -> Context: ...

    def ended(self, run: Run, ended: str | BaseException | None) -> None: ...


class Tools(NamedTuple):
    """What batchers use of their worker. `later(seconds, call)`; `freed`: there is room for more jobs."""

    desk: Desk
    resources: OpenResources
    pool: ThreadPool
    inbox: Inbox
    artifacts: Artifacts
    clock: Clock
    later: Callable[[float, Callable[[], None]], Timer]
    freed: Callable[[], None]
    broken: Callable[[ResourceFailed], None]

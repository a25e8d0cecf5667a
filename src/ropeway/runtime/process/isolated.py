"""Runs the leased jobs of a worker's isolated tasks: from the lease to a child, and back to the executor's verdict."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

import msgspec

from ropeway.domain.lease import Assignment
from ropeway.runtime.attempt import Reason, Session
from ropeway.runtime.executor import Executor
from ropeway.runtime.filing import Filing
from ropeway.runtime.inbox import Inbox
from ropeway.runtime.intake import Brought
from ropeway.runtime.mailbox import PostOffice
from ropeway.runtime.needs import Standing
from ropeway.runtime.process.call import Call, Counter
from ropeway.runtime.process.pool import GivenBack
from ropeway.runtime.process.pools import ProcessPools, cores
from ropeway.runtime.registry import App
from ropeway.runtime.run import Run, Work
from ropeway.runtime.snoozing import Snoozed

__all__ = ["Isolated", "IsolatedRun"]


class IsolatedRun(Run):
    """An attempt in a child. `call` is None while its files are brought."""

    __slots__ = ("_owner", "bringing", "call")

    def __init__(self, assignment: Assignment, session: Session, work: Work, owner: Isolated) -> None:
        super().__init__(assignment, session, work)
        self.call: Call | None = None
        self.bringing: asyncio.Task[None] | None = None
        self._owner = owner
        self.started = True
        self.handle = self

    def cancel(self) -> None:
        """It was asked to stop. In the loop."""
        self._owner.asked(self)

    def leaves_thread(self) -> bool:
        return False

    def ends_by_force(self) -> bool:
        return self.call is not None and self._owner.pools.kill(self.call)


class Isolated:
    """The starter of all tasks with `run="process"` that a worker serves. Everything is the loop's."""

    def __init__(
        self,
        app: App,
        standing: Standing,
        desk: Executor,
        inbox: Inbox,
        post: PostOffice,
        filing: Filing,
        children: int | None,
        freed: Callable[[], None],
    ) -> None:
        self._desk = desk
        self._loop = inbox.loop
        tasks = [task for name, task in app.tasks.items() if task.in_process and name not in standing.lacking]
        self._works = {task.name: Work(task, ()) for task in tasks}
        counter = Counter(post, filing.artifacts, desk.earlier, desk.others)
        self.pools = ProcessPools(app, tasks, inbox, counter, children or cores(), standing.devices, freed)
        desk.starters.update(dict.fromkeys(self._works, self))

    def start(self, assignment: Assignment, session: Session) -> None:
        """Run a leased job in a child."""
        run = IsolatedRun(assignment, session, self._works[assignment.task], self)
        session.attempts[assignment.lease.job_id] = run
        self._desk.running.add(run)
        self._desk.open_feed(run)
        if self._desk.needs(run):
            run.bringing = self._loop.create_task(self._bring(run))
        else:
            self._submit(run, None)

    def asked(self, run: IsolatedRun) -> None:
        """It is to stop."""
        if run.call is not None:
            self.pools.stop(run.call, run.reason or Reason.cancel)
        elif run.bringing is not None:
            run.bringing.cancel()

    async def _bring(self, run: IsolatedRun) -> None:
        try:
            await self._desk.bring(run)
            files = None if run.brought is None else await _copies(run.brought)
        except (Exception, asyncio.CancelledError, Snoozed) as error:
            self._back(run, error)
        else:
            self._submit(run, files)

    def _submit(self, run: IsolatedRun, files: dict[str, tuple[str, str]] | None) -> None:
        # Its times begin in the child: neither its start nor a model's loading is the job's doing.
        begun, back = functools.partial(self._desk.watch, run), functools.partial(self._back, run)
        run.call = self.pools.submit(run, run.feed, files, begun, back)

    def _back(self, run: IsolatedRun, ended: str | BaseException | None) -> None:
        """It has come to this."""
        run.handle = None  # it holds itself by that
        if isinstance(ended, GivenBack):
            run.reason = run.reason or Reason.drain
        self._desk.ended(run, ended)


async def _copies(brought: Brought) -> dict[str, tuple[str, str]]:
    """Every file of the input as a local copy: a child cannot fetch."""
    return {
        id_: (str(await brought.fetch(id_)), msgspec.json.encode(record).decode())
        for id_, record in brought.files.items()
    }

"""Runs attempts: resolve, call, judge, commit. On the loop or on a thread, and stopped when asked to."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from ropeway.blobs.handle import attached
from ropeway.domain.lease import Assignment, Outcome
from ropeway.domain.output import Made
from ropeway.runtime.attempt import Attempt, Reason, Session
from ropeway.runtime.calling import call_blocking
from ropeway.runtime.coding import encode_output
from ropeway.runtime.committer import Committer
from ropeway.runtime.composing.others import Others
from ropeway.runtime.context import Context
from ropeway.runtime.feed import Feed
from ropeway.runtime.filing import Filing
from ropeway.runtime.isolation import ThreadPool
from ropeway.runtime.judge import judge_failure, judge_unknown_task
from ropeway.runtime.mailbox import PostOffice
from ropeway.runtime.patience import Jitter
from ropeway.runtime.resources import OpenResources, ResourceFailed
from ropeway.runtime.resuming import Resuming
from ropeway.runtime.run import Run, Work
from ropeway.runtime.silence import listening
from ropeway.runtime.snoozing import Snoozed
from ropeway.runtime.writer import Writer

__all__ = ["Executor", "Run", "Starter", "Work"]

log = logging.getLogger("ropeway.worker")

FORCE_S = 5.0  # for a process to be killed in; what the kernel cannot end by then is given up

# From 3.12 a task may run its first step at once; a job that never waits then costs no trip through the loop.
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class Starter(Protocol):
    """Who runs the jobs of a task in a way of its own."""

    def start(self, assignment: Assignment, session: Session) -> None: ...


class Executor:
    """Everything that runs in this worker, and the way of each attempt from its lease to its commit.

    `running` holds attempts whose code has not ended; those given up stay in it, closed, until it does.
    """

    def __init__(
        self,
        works: Mapping[str, Work],
        resources: OpenResources,
        pool: ThreadPool,
        writer: Writer,
        committer: Committer,
        post: PostOffice,
        filing: Filing,
        others: Others,
        resuming: Resuming,
        *,
        jitter: Jitter,
        cancel_grace_s: float,
        freed: Callable[[], None],
        broken: Callable[[ResourceFailed], None],
    ) -> None:
        self.running: set[Run] = set()
        self.starters: dict[str, Starter] = {}  # of tasks that are not run one by one, here
        self.cancel_grace_s = cancel_grace_s
        self._loop = asyncio.get_running_loop()
        self._works = works
        self._resources = resources
        self._pool = pool
        self._writer = writer
        self._committer = committer
        self._post = post
        self._filing = filing
        self._jitter = jitter
        self.others = others
        self._resuming = resuming
        self._freed = freed
        self._broken = broken

    # -- start and stop

    def start(self, assignment: Assignment, session: Session) -> None:
        """Run a leased job."""
        work = self._works.get(assignment.task)
        if work is None:
            self._start_otherwise(assignment, session)
            return
        run = Run(assignment, session, work)
        session.attempts[assignment.lease.job_id] = run
        self.running.add(run)
        for lane in work.lanes:
            lane.used += 1
        if work.given is None:
            run.handle = self._loop.create_task(self._open_and_launch(run))
        else:
            self._launch(run)

    def _start_otherwise(self, assignment: Assignment, session: Session) -> None:
        starter = self.starters.get(assignment.task)
        if starter is not None:
            starter.start(assignment, session)
        else:
            self._committer.add(Attempt(assignment, session), judge_unknown_task(assignment))

    def ask(self, attempt: Attempt, reason: Reason, grace_s: float | None = None) -> None:
        """Ask an attempt to stop, and give it up after `grace_s` seconds (`cancel_grace_s`) if it does not.

        The first reason counts; but a lost lease beats them all, since nothing may be written after it.
        """
        was_asked = attempt.reason is not None
        if reason is Reason.lost or not was_asked:
            attempt.reason = reason
        if was_asked or attempt.closed or not isinstance(attempt, Run):
            return
        if attempt.feed is not None:
            attempt.feed.release_waiting()
        if attempt.mail is not None:
            attempt.mail.close()
        if attempt.timer is not None:
            attempt.timer.cancel()
        if attempt.silence is not None:
            attempt.silence.end()
        grace_s = self.cancel_grace_s if grace_s is None else grace_s
        attempt.timer = self._loop.call_later(grace_s, self._give_up, attempt)
        if attempt.handle is not None and attempt.started:  # one that has not begun looks for itself when it does
            attempt.handle.cancel()

    async def _open_and_launch(self, run: Run) -> None:
        """For a job whose task this worker was not prepared for: its queue was chosen at submit."""
        try:
            run.work.given = await self._resources.open(run.work.task.resource_names)
        except ResourceFailed as error:
            self._broken(error)
            self._over(run, Outcome("release"))
        else:
            run.handle = None
            self._launch(run)

    def _launch(self, run: Run) -> None:
        self.open_feed(run)
        self.watch(run)
        if self.needs(run):
            run.handle = self._loop.create_task(self._bring_and_begin(run))
        else:
            self._begin(run)

    def open_feed(self, run: Run) -> None:
        """Give the attempt a way to tell of itself, if its task does."""
        task = run.work.task
        if task.streams or task.context_name is not None:
            run.feed = self._writer.feed(run)

    def watch(self, run: Run) -> None:
        """Its times begin."""
        if run.reason is not None:
            return
        options = run.assignment.options
        if options.timeout_s is not None:
            run.timer = self._loop.call_later(options.timeout_s, self.ask, run, Reason.timeout)
        if options.first_output_timeout_s is not None or options.output_timeout_s is not None:
            run.silence = listening(options, self._loop, run.feed, functools.partial(self.ask, run))

    def needs(self, run: Run) -> bool:
        """Whether something must be brought before its code can begin."""
        assignment = run.assignment
        return (
            self._filing.intake.wants(assignment)
            or self.others.wants(assignment)
            or (assignment.options.resumable and self._resuming.wants(run))
        )

    async def bring(self, run: Run) -> None:
        """Bring it: the outputs and files of its input, the output of an earlier attempt to go on from."""
        if self.others.wants(run.assignment):
            await self.others.bring(run)
        if self._resuming.wants(run) and run.feed is not None:
            run.feed.resume(await self._resuming.earlier(run))
        if self._filing.intake.wants(run.assignment):
            intake = self._filing.intake
            run.brought = await intake.bring(run.work.task, run.assignment, lambda: run.reason is not None)

    async def earlier(self, run: Attempt) -> Made:
        """What earlier attempts of its job made."""
        return await self._resuming.earlier(run)

    async def _bring_and_begin(self, run: Run) -> None:
        try:
            await self.bring(run)
        except (Exception, asyncio.CancelledError, Snoozed) as error:
            if run.work.task.on_loop:
                self._over(run, self._judge(run, error))
            else:
                self._returned(run, error)
        else:
            run.handle = None
            self._begin(run)

    def _begin(self, run: Run) -> None:
        if run.work.task.on_loop:
            job_id = run.assignment.lease.job_id
            run.handle = asyncio.Task(self._run(run), loop=self._loop, name=job_id, **_EAGER)
        else:
            self._pool.submit(self._run_in_thread, run, self._returned)

    def _give_up(self, run: Run) -> None:
        """Its code did not stop when asked: the outcome is decided without it. Its room stays taken till it ends."""
        if run.closed:
            return
        if run.ends_by_force():
            run.timer = self._loop.call_later(FORCE_S, self._give_up, run)
            return
        job_id, task = run.assignment.lease.job_id, run.assignment.task
        log.warning("%s (%s) did not stop when asked (%s): given up, still running", job_id, task, run.reason)
        if run.leaves_thread():
            self._pool.abandoned += 1
        self._commit(run, self._judge(run, asyncio.CancelledError()))

    # -- resolve, call, judge, commit

    async def _run(self, run: Run) -> None:
        run.started = True
        ended: str | BaseException | None
        try:
            ended = await self._call(run, self._resolve(run))
            if self._filing.artifacts.saves(run):
                await self._filing.artifacts.settled(run)
        except GeneratorExit:  # the loop itself is gone
            raise
        except BaseException as error:
            ended = error
        self._over(run, self._judge(run, ended))

    def _run_in_thread(self, run: Run) -> str | BaseException | None:
        try:
            return call_blocking(run.work.task, self._resolve(run), run, run.feed)
        except BaseException as error:
            return error

    def _returned(self, run: Run, ended: str | BaseException | None) -> None:
        if run.closed:
            self._pool.abandoned -= 1
        self._over(run, self._judge(run, ended))

    def _resolve(self, run: Run) -> dict[str, Any]:
        """The arguments of the call: the job's input, and what the worker gives. Raises InputInvalid."""
        if run.reason is not None:
            raise asyncio.CancelledError(run.reason)
        work = run.work
        task = work.task
        if run.brought is None:
            arguments = task.input.decode(run.assignment.input)
        else:
            with attached(run.brought):
                arguments = task.input.decode_with(run.assignment.input, run.brought.values)
        if work.given:
            arguments.update(work.given)
        if task.context_name is not None and run.feed is not None:
            arguments[task.context_name] = self.context(run, run.feed)
        return arguments

    def context(self, run: Run, feed: Feed) -> Context:
        """What the task is given to know this attempt by."""
        return Context(run, feed, self._pool, self._post, self._filing.artifacts, self._resuming, self.others)

    async def _call(self, run: Run, arguments: dict[str, Any]) -> str | None:
        """The output as JSON; None when it is what was emitted."""
        task = run.work.task
        if not task.streams:
            value = await task.fn(**arguments)
            return None if value is None else encode_output(value)
        feed, items = run.feed, task.fn(**arguments)
        assert feed is not None
        try:
            async for item in items:
                feed.emit(item)
                if feed.full:
                    await feed.room()
        finally:
            await items.aclose()
        return None

    def ended(self, run: Run, ended: str | BaseException | None) -> None:
        """Its code has come to this: the output as JSON, None for what was emitted, or how it failed."""
        self._over(run, self._judge(run, ended))

    def _judge(self, run: Run, ended: str | BaseException | None) -> Outcome:
        """What it came to. One that snoozed or was out of time stays so, also when it went on to return something."""
        if isinstance(ended, BaseException):
            return judge_failure(run, ended, run.partial, self._jitter)
        if run.snooze is not None or (run.reason is not None and run.reason.is_timeout):
            return judge_failure(run, TimeoutError(), run.partial, self._jitter)
        if ended is None:
            task = run.work.task
            ended = run.partial or (task.empty_output if task.streams else "null")
        return Outcome("succeeded", ended)

    def _over(self, run: Run, outcome: Outcome) -> None:
        """Its code has ended: its room is free."""
        self.running.discard(run)
        if run.mail is not None:
            run.mail.close()
        self._filing.over(run, run.brought)
        for lane in run.work.lanes:
            lane.used -= 1
        if not run.closed:
            self._commit(run, outcome)
        self._freed()

    def _commit(self, run: Run, outcome: Outcome) -> None:
        """Hand the outcome over, after the events that belong before it. From here on nothing its code does counts."""
        if run.timer is not None:
            run.timer.cancel()
        if run.silence is not None:
            run.silence.end()
        if run.feed is None:
            run.closed = True
            self._filing.outputs.add(run, outcome)
        else:
            used = run.feed.used
            if used is not None:
                outcome = msgspec.structs.replace(outcome, usage=used)
            run.feed.finish(functools.partial(self._filing.outputs.add, run, outcome))
            run.closed = True

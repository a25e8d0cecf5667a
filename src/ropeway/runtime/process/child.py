"""The child's program: it imports the application, opens what its tasks need, and runs jobs one after the other.

1. It is in a session of its own: a Ctrl-C in the worker's terminal is not for it. A SIGTERM that is sent to every
   process of a service is not either: the worker drains then. Its code is interrupted when the worker says so, by a
   SIGTERM of our own that raises CancelledError, and the child ends after that.
2. It dies with its worker, by the kernel's hand where there is one (PR_SET_PDEATHSIG), since code that holds the
   interpreter would not hear the end of a line. Elsewhere by that end, and with it dies what the task has started.
3. What the interpreter says as it crashes goes into a file of the worker's, which tells it with the job.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import logging
import operator
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from ropeway.blobs.handle import attached
from ropeway.runtime.attempt import Attempt, Reason, Session
from ropeway.runtime.calling import call_blocking
from ropeway.runtime.context import Context
from ropeway.runtime.process.desk import Desk, Line
from ropeway.runtime.process.local import LocalFiles
from ropeway.runtime.process.wire import Answer, Done, Failed, Hello, Job, Ready, Stop, Unfit, Wire
from ropeway.runtime.registry import App
from ropeway.runtime.resources import OpenResources
from ropeway.runtime.task import Task
from ropeway.runtime.verdict import verdict_of

__all__ = ["main"]

T = TypeVar("T")

log = logging.getLogger("ropeway.child")

PR_SET_PDEATHSIG = 1
LOG_FORMAT = f"%(asctime)s %(levelname)-7s child {os.getpid()}: %(message)s"


def main(jobs_fd: int, control_fd: int, dump_fd: int, parent: int) -> None:
    """Serve the worker with this process id, until it has no more for us or is gone."""
    _die_with(parent)
    for fd in (jobs_fd, control_fd, dump_fd):
        os.set_inheritable(fd, False)  # what the task starts must not keep them open
    faulthandler.enable(dump_fd)
    del sys.argv[1:]
    _Program(Wire(jobs_fd), Wire(control_fd)).run()


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it died before that
        os._exit(0)


class _Inline:
    """Blocking resources are opened here, on the main thread, where the jobs will use them."""

    async def step(self, call: Callable[[], T]) -> T:
        return call()


class _Program:
    """One child. The main thread runs jobs; another hears what cannot wait for their end."""

    def __init__(self, jobs: Wire, control: Wire) -> None:
        self._jobs = jobs
        self._control = control
        self._desk = Desk(jobs)
        self._session = Session("", 0.0)
        self._given: dict[str, dict[str, Any]] = {}
        self._main = threading.get_ident()
        self._now: tuple[int, Attempt, Line] | None = None
        self._stop: Stop | None = None
        self._inside = False  # in the task's own code
        self._interrupting = False  # the worker has said so
        self._interrupted = False

    def run(self) -> None:
        hello = self._jobs.receive()
        if not isinstance(hello, Hello):
            return
        signal.signal(signal.SIGTERM, self._interrupt)
        signal.signal(signal.SIGINT, _ignore)  # not SIG_IGN, which what the task starts would inherit
        threading.Thread(target=self._listen, name="ropeway-control", daemon=True).start()
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            try:
                tasks, resources = _set_up(hello)
                for task in tasks.values():
                    self._given[task.name] = loop.run_until_complete(resources.open(task.resource_names))
            except BaseException as error:  # SystemExit of a module too
                self._jobs.send(Unfit(_what_is_wrong(error)))
                return
            gc.collect()
            gc.freeze()  # what is loaded stays
            self._jobs.send(Ready())
            while isinstance(job := self._jobs.receive(), Job) and self._serve(tasks[job.assignment.task], job):
                pass
            loop.run_until_complete(resources.close())

    # -- the main thread

    def _serve(self, task: Task[..., Any, Any], job: Job) -> bool:
        """Run a job and tell what it came to. Whether this process is fit for another."""
        attempt = Attempt(job.assignment, self._session)
        attempt.earlier = None if job.earlier is None else job.earlier.made()
        attempt.awaited = job.awaited
        line = Line(attempt, self._jobs, self._desk)
        self._now = (job.n, attempt, line)
        if self._stop is not None and self._stop.n == job.n:  # it came before the job did
            attempt.reason = Reason(self._stop.reason)
        told: Done | Failed
        try:
            arguments = self._arguments(task, job, attempt, line)
            self._inside = True
            output = call_blocking(task, arguments, attempt, line)
            self._inside = False
            told = Done(output, attempt.snooze)
        except BaseException as error:
            self._inside = False
            told = Failed(verdict_of(error), isinstance(error, MemoryError), attempt.snooze)
        self._now = None
        line.flush()
        attempt.closed = True
        self._jobs.send(told)
        return not self._interrupted and not (isinstance(told, Failed) and told.spent)

    def _arguments(self, task: Task[..., Any, Any], job: Job, attempt: Attempt, line: Line) -> dict[str, Any]:
        if attempt.reason is not None:
            raise asyncio.CancelledError(attempt.reason)
        if job.files is None:
            arguments = task.input.decode(job.assignment.input)
        else:
            files = LocalFiles(job.files)
            with attached(files):
                arguments = task.input.decode_with(job.assignment.input, files.values(task, job.assignment.input))
        arguments.update(self._given[task.name])
        if task.context_name is not None:
            desk = self._desk
            arguments[task.context_name] = Context(
                attempt, line, desk, desk.post, desk.artifacts, desk.resuming, desk.others
            )
        return arguments

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM, on the main thread, between any two steps of whatever it does."""
        now = self._now
        if not self._interrupting or now is None or not self._inside:
            return
        self._interrupted = True
        if self._jobs.sender != self._main:
            raise asyncio.CancelledError(now[1].reason)
        self._jobs.owed = asyncio.CancelledError(now[1].reason)  # now, half a frame would stand before the next

    # -- the other thread

    def _listen(self) -> None:
        while (frame := self._control.receive()) is not None:
            match frame:
                case Stop():
                    self._stop = frame
                    if self._now is not None and self._now[0] == frame.n:
                        self._now[1].reason = Reason(frame.reason)
                        if frame.now:
                            self._interrupting = True
                            signal.pthread_kill(self._main, signal.SIGTERM)
                case Answer(n=0):
                    if self._now is not None:
                        self._now[2].acknowledged()
                case Answer():
                    self._desk.answered(frame)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # the worker is gone: and with us what the task has started
        os._exit(1)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass


def _set_up(hello: Hello) -> tuple[dict[str, Task[..., Any, Any]], OpenResources]:
    """The tasks, found as the worker found them. Raises LookupError, TypeError, and whatever the import does."""
    logging.basicConfig(level=hello.log_level, format=LOG_FORMAT, datefmt="%H:%M:%S")
    _limit(hello.data_mib)
    module, _, name = hello.address.partition(":")
    app = operator.attrgetter(name)(importlib.import_module(module))
    if not isinstance(app, App):
        raise TypeError(f"{hello.address} is no App here")
    for name in hello.tasks:
        if name not in app.tasks:
            raise LookupError(
                f"{hello.address} has no task '{name}' when it is imported anew: declare it where the module is "
                "imported, and not under `if __name__ == '__main__'`"
            )
    return {name: app.tasks[name] for name in hello.tasks}, OpenResources(app.resources, _Inline())


def _limit(data_mib: int | None) -> None:
    if data_mib is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (data_mib << 20, data_mib << 20))


def _what_is_wrong(error: BaseException) -> str:
    return str(error) if isinstance(error, LookupError) else f"{type(error).__name__}: {error}"

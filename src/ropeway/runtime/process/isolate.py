"""One child as the worker holds it: started, written to, heard, asked to stop, killed, buried.

1. A thread of its own starts it, waits for its death and reaps it: the loop waits for nothing, and the kernel's
   PR_SET_PDEATHSIG, which belongs to the thread that started a process, holds for as long as the child lives. Its death
   is never told by the end of its socket, which anything that the task forked may hold open.
2. It leads a group, with all that the task starts in it, and is killed with it: before it is reaped, so that the number
   cannot be another's by then.
3. It is read no further while its job's feed is full: its writes then wait, and with them its code.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import Protocol

import msgspec

from ropeway.runtime.inbox import Inbox
from ropeway.runtime.process.call import Call
from ropeway.runtime.process.wire import (
    Answer,
    Done,
    Down,
    Earlier,
    Failed,
    Frames,
    Hello,
    Job,
    Ready,
    Stop,
    Unfit,
    Up,
    packed,
)

__all__ = ["CLOSE_S", "TERM_S", "Death", "Isolate", "Life", "Owner"]

log = logging.getLogger("ropeway.worker")

TERM_S = 0.5  # from the interruption, which the code gets as CancelledError, to SIGKILL
CLOSE_S = 5.0  # that a child which is let go may take to close its resources
LAST_WORDS_S = 1.0  # between its death and the end of its socket, which something that it started may hold open
DUMP_CHARS = 8_192
PROGRAM = """
import sys
sys.path[:] = sys.argv[5:]
from ropeway.runtime.process.child import main
main(*map(int, sys.argv[1:5]))
"""


class Life(enum.Enum):
    """`leaving`: it gets no more jobs, and will be gone."""

    starting = enum.auto()
    idle = enum.auto()
    busy = enum.auto()
    leaving = enum.auto()
    gone = enum.auto()


class Death(msgspec.Struct, frozen=True):
    """How a child ended. `code` is negative for a signal. `dump` is what its interpreter said as it crashed."""

    code: int
    dump: str | None = None


class Owner(Protocol):
    """Who keeps a child. All is told in the loop."""

    def ready(self, child: Isolate) -> None:
        """It has opened what its tasks need, or has ended a job: it is idle."""
        ...

    def gone(self, child: Isolate, death: Death) -> None:
        """It is dead. `child.call` is the job that it had."""
        ...


class Isolate(asyncio.Protocol):
    """Everything but its thread belongs to the loop. `unfit` is what it said when it could not run its tasks.

    `over_limit` is set by whoever kills it for what it holds, and says so.
    """

    def __init__(
        self, hello: Hello, pin: str | None, environment: Mapping[str, str], inbox: Inbox, owner: Owner
    ) -> None:
        self.pin = pin
        self.life = Life.starting
        self.call: Call | None = None
        self.jobs = 0
        self.idle_since_s = 0.0
        self.pid = 0
        self.was_ready = False
        self.was_let_go = False
        self.unfit: str | None = None
        self.over_limit: str | None = None
        self._hello = hello
        self._environment = environment
        self._inbox = inbox
        self._loop = inbox.loop
        self._owner = owner
        self._frames = Frames()
        self._down: asyncio.Transport | None = None
        self._aside: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._killing = threading.Lock()
        self._reaped = False
        self._ended = False  # its socket
        self._death: Death | None = None

    def start(self) -> None:
        """Begin its life. What fails is told by `Owner.gone`."""
        jobs, their_jobs = socket.socketpair()
        control, their_control = socket.socketpair()
        self._connecting = self._loop.create_task(self._connect(jobs, control))
        threading.Thread(target=self._live, args=(their_jobs, their_control), name="ropeway-child", daemon=True).start()

    def run(self, call: Call) -> None:
        """Give it a job. It must be idle."""
        self.jobs += 1
        self.life, self.call = Life.busy, call
        call.child, call.n = self, self.jobs
        made = call.attempt.earlier
        earlier = None if made is None else Earlier.of(made)
        self._send(Job(self.jobs, call.fenceless, call.files, earlier, call.attempt.awaited))

    def stop(self, n: int, reason: str) -> None:
        """Tell it that its job `n` is to stop."""
        self._say(Stop(n, reason))

    def answer(self, answer: Answer) -> None:
        self._say(answer)

    def let_go(self) -> None:
        """Have it close what it has opened, and end."""
        self.life = Life.leaving
        if self._down is None:  # it has hardly begun
            self.kill()
        else:
            with contextlib.suppress(OSError, RuntimeError):
                self._down.write_eof()
            self._loop.call_later(CLOSE_S, self.kill)

    def interrupt(self, reason: str) -> None:
        """Its job has not stopped when it was asked to: raise CancelledError in it, and soon after kill it."""
        self.life = Life.leaving
        self._say(Stop(self.jobs, reason, now=True))
        self._loop.call_later(TERM_S, self.kill)

    def kill(self) -> None:
        """End it, and all that it has started, now."""
        if self.life is not Life.gone:
            self.life = Life.leaving
            with self._killing:
                if self.pid and not self._reaped:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(self.pid, signal.SIGKILL)

    # -- its thread

    def _live(self, jobs: socket.socket, control: socket.socket) -> None:
        with jobs, control, tempfile.TemporaryFile() as dump:
            fds = (jobs.fileno(), control.fileno(), dump.fileno())
            try:
                process = subprocess.Popen(  # noqa: S603 - our own program
                    [sys.executable, "-c", PROGRAM, *map(str, (*fds, os.getpid())), *sys.path],
                    env=self._environment,
                    pass_fds=fds,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                self._inbox.post(self._stillborn, str(error))
                return
            jobs.close()
            control.close()
            self.pid = process.pid
            _await_death(process)
            with self._killing:
                self._reaped = True
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it leaves behind
                code = process.wait()
            dump.seek(0)
            said = dump.read(DUMP_CHARS).decode(errors="replace").strip()
        self._inbox.post(self._died, Death(code, said or None))

    # -- its sockets

    async def _connect(self, jobs: socket.socket, control: socket.socket) -> None:
        self._aside, _ = await self._loop.create_unix_connection(asyncio.Protocol, sock=control)
        self._down, _ = await self._loop.create_unix_connection(lambda: self, sock=jobs)
        self._send(self._hello)
        if self.life is Life.leaving:  # we were told to let it go meanwhile
            self.kill()

    def _send(self, frame: Down) -> None:
        if self._down is not None and not self._down.is_closing():
            self._down.write(packed(frame))

    def _say(self, frame: Down) -> None:
        if self._aside is not None and not self._aside.is_closing():
            self._aside.write(packed(frame))

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.heard(data):
                self._hear(frame)
        except Exception:  # its code may have written to our socket
            log.exception("child %d (%s) cannot be understood: killed", self.pid, ", ".join(self._hello.tasks))
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        """As a rule it has died; one that has not can neither tell nor be told anything any more."""
        self._ended = True
        if self._death is None:
            self._loop.call_later(LAST_WORDS_S, self.kill)
        self._bury()

    def _hear(self, frame: Up) -> None:
        match frame:
            case Done() | Failed():
                self._finished(frame)
            case Ready():
                self._rest()
            case Unfit():
                self.unfit = frame.detail
                self.let_go()
            case _ if self.call is not None and not self.call.attempt.closed:
                self.call.hear(frame)
                if self.call.is_full:
                    self._pause(self.call)

    def _pause(self, call: Call) -> None:
        assert self._down is not None and call.feed is not None
        self._down.pause_reading()
        call.feed.when_room(self._resume)

    def _resume(self) -> None:
        if self._down is not None and not self._down.is_closing():
            self._down.resume_reading()

    def _finished(self, frame: Done | Failed) -> None:
        call, self.call = self.call, None
        if isinstance(frame, Failed) and frame.spent and self.life is Life.busy:
            self.let_go()
        if call is not None:
            call.came_back(frame)
        self._rest()

    def _rest(self) -> None:
        """It has nothing to do; unless it is on its way out."""
        if self.life in (Life.starting, Life.busy):
            self.life, self.was_ready = Life.idle, True
            self.idle_since_s = self._loop.time()
            self._owner.ready(self)

    # -- its death

    def _stillborn(self, why: str) -> None:
        self.unfit = f"no process can be started: {why}"
        self._ended = True
        self._died(Death(1))

    def _died(self, death: Death) -> None:
        self._death = death
        self._resume()  # what it said before it died is still to be heard
        self._loop.call_later(LAST_WORDS_S, self.connection_lost, None)
        self._bury()

    def _bury(self) -> None:
        if self._death is None or not self._ended or self.life is Life.gone:
            return
        self.was_let_go, self.life = self.life is Life.leaving, Life.gone
        for transport in (self._down, self._aside):
            if transport is not None:
                transport.abort()
        self._owner.gone(self, self._death)


def _await_death(process: subprocess.Popen[bytes]) -> None:
    """Until it is dead; not reaped, where the system lets us wait so."""
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()

"""A child process of the supervisor: its program, its line, its sessions, and when it may be started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping

import msgspec

from ropeway.domain.retry import Retry, backoff_s
from ropeway.runtime.link import LINK_VARIABLE

__all__ = ["Child", "ChildSpec"]

RESTART = Retry(max_attempts=1000, base_s=0.1, factor=2.0, cap_s=10.0)
SETTLED_S = 10.0  # one that lived so long has not died of its start


class ChildSpec(msgspec.Struct, frozen=True):
    """A program to keep running: its name for people, its argv, and what it gets beside our own environment."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = {}


class Child:
    """One of the supervisor's children, through all its lives. Times are monotonic seconds.

    `sessions` are those that the present life has opened. `was_up` tells whether any life ever came up.
    """

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.sessions: set[str] = set()
        self.was_up = False
        self.restart_at_s: float | None = 0.0
        self.quick_deaths = 0
        self.line_fd: int | None = None
        self._hold_fd: int | None = None
        self._rest = b""
        self._started_at_s = 0.0

    def start(self, now_s: float) -> None:
        """Begin a life. Raises OSError when there is no such program."""
        line_fd, child_write = os.pipe()
        child_read, hold_fd = os.pipe()
        try:
            # In a session of its own: a Ctrl-C in our terminal is ours to pass on, once.
            self.process = subprocess.Popen(  # noqa: S603 - the caller's own program
                self.spec.argv,
                env={**os.environ, **self.spec.environment, LINK_VARIABLE: f"{child_write},{child_read}"},
                pass_fds=(child_write, child_read),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            os.close(line_fd)
            os.close(hold_fd)
            raise
        finally:
            os.close(child_write)
            os.close(child_read)
        os.set_blocking(line_fd, False)
        self.line_fd, self._hold_fd, self._rest = line_fd, hold_fd, b""
        self._started_at_s, self.restart_at_s = now_s, None

    def listen(self) -> None:
        """Take in what the child has said. At the end of its line, the line is closed."""
        assert self.line_fd is not None
        while True:
            try:
                heard = os.read(self.line_fd, 65_536)
            except BlockingIOError:
                return
            if not heard:
                self._close_line()
                return
            *lines, self._rest = (self._rest + heard).split(b"\n")
            for line in lines:
                self._hear(line.decode(errors="replace"))

    def reap(self, now_s: float) -> int | None:
        """The exit code, if it has died: negative for a signal. Its next start is set then."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        if self.line_fd is not None:
            self.listen()
            self._close_line()
        if self._hold_fd is not None:
            os.close(self._hold_fd)
            self._hold_fd = None
        self.process = None
        self.quick_deaths = self.quick_deaths + 1 if now_s - self._started_at_s < SETTLED_S else 1
        self.restart_at_s = now_s + backoff_s(RESTART, self.quick_deaths, 1.0)
        return code

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def _hear(self, line: str) -> None:
        word, _, session = line.partition(" ")
        if word == "opened":
            self.sessions.add(session)
        elif word == "closed":
            self.sessions.discard(session)
        self.was_up = self.was_up or word in ("opened", "ready")

    def _close_line(self) -> None:
        if self.line_fd is not None:
            os.close(self.line_fd)
            self.line_fd = None

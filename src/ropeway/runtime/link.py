"""A child's line to the supervisor that started it: it tells its sessions, and hears when the supervisor is gone.

The supervisor gives the child two pipe ends, named in the environment. On one the child writes lines
(`opened SESSION`, `closed SESSION`, `ready`); the other is never written to: when it ends, the supervisor is dead.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping

__all__ = ["LINK_VARIABLE", "SupervisorLink"]

LINK_VARIABLE = "ROPEWAY_SUPERVISOR_FDS"  # "<fd to write to>,<fd whose end tells>"


class SupervisorLink:
    """The child's end. Safe from any thread; a supervisor that is gone is no error of a write."""

    def __init__(self, write_fd: int, read_fd: int) -> None:
        self._write_fd = write_fd
        self._read_fd = read_fd
        for fd in (write_fd, read_fd):
            os.set_inheritable(fd, False)  # what user code starts must not keep the line open

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> SupervisorLink | None:
        """The line that this process was started with, if a supervisor started it."""
        named = environment.get(LINK_VARIABLE)
        if not named:
            return None
        write_fd, read_fd = named.split(",")
        return cls(int(write_fd), int(read_fd))

    def ready(self) -> None:
        """This process is up. A worker says it by opening a session; others say it so."""
        self._say("ready")

    def session_opened(self, session: str) -> None:
        self._say(f"opened {session}")

    def session_closed(self, session: str) -> None:
        self._say(f"closed {session}")

    def when_gone(self, then: Callable[[], None]) -> None:
        """Have `then` called, in another thread, when the supervisor is gone."""
        threading.Thread(target=self._watch, args=(then,), name="ropeway-link", daemon=True).start()

    def _watch(self, then: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            while os.read(self._read_fd, 1):
                pass
        then()

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._write_fd, f"{line}\n".encode())

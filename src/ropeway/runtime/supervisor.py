"""Keeps workers and gateways running, and their sessions alive, from a process that runs no user code.

a child says which session it opened  ->  renewed from here: code that holds its interpreter loses nothing
a child dies                          ->  its sessions are closed at once, so that its jobs run elsewhere; restarted
a child dies again and again          ->  restarted later and later, and told so
a child never came up                 ->  a wrong set-up: all stop, with its exit code
SIGTERM, SIGINT                       ->  passed on; who has not ended within the grace is killed
the supervisor dies                   ->  the children see their line end, and drain
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.lease import DEFAULT_SESSION_TTL_MS
from ropeway.engines.base import Renewer
from ropeway.runtime.child import Child, ChildSpec
from ropeway.runtime.keeper import BEATS_PER_TTL
from ropeway.runtime.renewals import Renewals

__all__ = ["ChildSpec", "Supervisor"]

log = logging.getLogger("ropeway.supervisor")

GRACE_S = 40.0  # a worker's own grace is 30 s, and it needs a little more to release what is left
HURRY_S = 5.0  # after the second signal
LOOK_S = 1.0  # a death is seen by the end of its line; this is for one that left its line to others
REAP_S = 0.01  # between the end of a line and the death


class Supervisor:
    """Runs children until it is told to stop, or until one proves that it never will run.

    Args:
        renewer: on the engine whose sessions the children open; None when they open none.
        ttl_ms: of the children's sessions.
        grace_s: seconds that children have to end by themselves.
    """

    def __init__(
        self,
        children: Sequence[ChildSpec],
        renewer: Renewer | None = None,
        *,
        ttl_ms: int = DEFAULT_SESSION_TTL_MS,
        grace_s: float = GRACE_S,
        clock: Clock | None = None,
    ) -> None:
        self._children = [Child(spec) for spec in children]
        self._renewals = None if renewer is None else Renewals(renewer, ttl_ms)
        self._ttl_ms = ttl_ms
        self._grace_s = grace_s
        self._clock = clock or SystemClock()
        self._renew_at_s = 0.0
        self._asked = 0  # how often it was asked to stop
        self._obeyed = 0
        self._kill_at_s: float | None = None
        self._exit_code = 0
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def run(self) -> int:
        """Until stopped. Returns the exit code: 0, or that of a child that never came up."""
        with contextlib.closing(selectors.DefaultSelector()) as selector, self._signals():
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not self._over():
                self._step(selector)
        if self._renewals is not None:
            self._renewals.end()
        return self._exit_code

    def stop(self) -> None:
        """Have the children drain and end; again: have them end now; a third time: kill them. From anywhere."""
        self._asked += 1
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b".")

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run now, by the children's names."""
        return {child.spec.name: child.process.pid for child in self._children if child.process is not None}

    # -- one step

    def _step(self, selector: selectors.BaseSelector) -> None:
        now_s = self._clock.monotonic_s()
        self._obey(now_s)
        self._start_due(now_s, selector)
        self._renew_due(now_s)
        for key, _ in selector.select(self._sleep_s(now_s)):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 1024)
            else:
                key.data.listen()
                if key.data.line_fd is None:
                    selector.unregister(key.fd)
        for child in self._children:
            line_fd, code = child.line_fd, child.reap(self._clock.monotonic_s())
            if code is not None:
                if line_fd is not None:
                    selector.unregister(line_fd)
                self._died(child, code)

    def _sleep_s(self, now_s: float) -> float:
        """Until something is due."""
        due_s = [now_s + LOOK_S, self._renew_at_s]
        due_s += [child.restart_at_s for child in self._children if child.restart_at_s is not None and not self._asked]
        if self._kill_at_s is not None:
            due_s.append(self._kill_at_s)
        if any(child.process is not None and child.line_fd is None for child in self._children):
            due_s.append(now_s + REAP_S)
        if self._asked > self._obeyed:
            return 0.0
        return max(min(due_s) - now_s, 0.0)

    def _over(self) -> bool:
        return self._asked > 0 and not self.pids

    def _obey(self, now_s: float) -> None:
        """Pass on what we were asked, and kill who has not obeyed in time."""
        while self._obeyed < self._asked:
            self._obeyed += 1
            # The second is another signal than the first: two of a kind become one while the child has not looked.
            number = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)[min(self._obeyed, 3) - 1]
            self._kill_at_s = now_s + (self._grace_s if self._obeyed == 1 else HURRY_S)
            log.info("stopping %d processes (%s)", len(self.pids), number.name)
            for child in self._children:
                child.signal(number)
        if self._kill_at_s is not None and now_s >= self._kill_at_s:
            log.warning("killing what did not end in time: %s", ", ".join(self.pids))
            self._kill_at_s = now_s + LOOK_S
            for child in self._children:
                child.signal(signal.SIGKILL)

    def _start_due(self, now_s: float, selector: selectors.BaseSelector) -> None:
        for child in self._children:
            if self._asked or child.restart_at_s is None or child.restart_at_s > now_s:
                continue
            try:
                child.start(now_s)
            except OSError as error:
                log.error("%s cannot be started: %s", child.spec.name, error)
                self._give_up(1)
                return
            assert child.line_fd is not None
            selector.register(child.line_fd, selectors.EVENT_READ, child)

    def _renew_due(self, now_s: float) -> None:
        if now_s < self._renew_at_s:
            return
        self._renew_at_s = now_s + self._ttl_ms / 1000 / BEATS_PER_TTL
        sessions = [session for child in self._children for session in child.sessions]
        if self._renewals is not None:
            self._renewals.renew(sessions)

    def _died(self, child: Child, code: int) -> None:
        told = ": its jobs run elsewhere" if child.sessions else ""
        if self._renewals is not None:
            self._renewals.close(tuple(child.sessions))
        child.sessions.clear()
        name, how = child.spec.name, f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if self._asked:
            log.info("%s ended (%s)", name, how)
        elif code >= 0 and not child.was_up:
            log.error("%s ended before it was up (%s): see what it said above", name, how)
            self._give_up(code or 1)
        else:
            wait_s = (child.restart_at_s or 0.0) - self._clock.monotonic_s()
            again = f", {child.quick_deaths} times in a row soon after its start" if child.quick_deaths > 1 else ""
            log.warning("%s died (%s)%s%s; restart in %.1f s", name, how, again, told, wait_s)

    def _give_up(self, code: int) -> None:
        self._exit_code = self._exit_code or code
        self.stop()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def heard(_number: int, _frame: FrameType | None) -> None:
            self.stop()

        before = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

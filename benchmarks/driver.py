"""The driver's end of a measurement: it is given a specification, and speaks JSON lines on its standard output.

    {"event": "ready"}                        it may begin
    {"event": "progress", "text": "10 jobs wait"}
    {"event": "ended", "jobs": 20, ...}       of one worker among several: how far it is
    {"event": "result", "wall_s": 1.5, ...}   the last line

A driver ends by itself when its standard input closes, so it never outlives the benchmark that started it.
Standard library only: peers' drivers run inside the peers' own environments.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TextIO

from benchmarks.measure import Usage, peak_kib, reset_peak, resident_kib, usage

__all__ = ["Marks", "Spec", "Verb", "drained", "emit", "finish", "main", "marks_for", "stopped", "wait_until"]

Spec = Mapping[str, Any]
Verb = Callable[[Spec], Mapping[str, Any]]

_POLL_S = 0.005  # how finely the end of a drain is seen; a drain takes seconds
_TELL_S = 0.01  # how finely the progress of several workers is seen
_SKIP = 0.05  # the share of the jobs that warm pools, connections and caches before the first mark

stopped = threading.Event()
"""Set when the benchmark says `stop`."""

_told_to_go = threading.Event()
_out: TextIO = sys.stdout


def main(verbs: Mapping[str, Verb]) -> None:
    """Do what the specification in the first argument says, and give its result."""
    global _out
    _out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not mix with what we say
    threading.Thread(target=_follow_parent, daemon=True).start()
    spec: Spec = json.loads(sys.argv[1])
    finish(verbs[spec["verb"]](spec))


def finish(result: Mapping[str, Any]) -> NoReturn:
    """Give the result and end, from any thread: threads and pools of what was measured are not worth waiting for."""
    emit("result", **result)
    _out.flush()
    os._exit(0)


def emit(event: str, **facts: Any) -> None:
    """Say something to the benchmark."""
    _out.write(json.dumps({"event": event, **facts}) + "\n")


def wait_until(condition: Callable[[], bool]) -> None:
    """Block until a condition holds, looking every 5 ms. The benchmark's deadline ends a wait that is in vain."""
    while not condition():
        time.sleep(_POLL_S)


class Marks:
    """Counts jobs inside the worker's process, and notes the time and the CPU used when the warm-up ends.

    Called by the measured tasks themselves, from any thread: the same few instructions for everyone. One worker of
    several waits for `go`, tells how far it is, and is `done` when the benchmark says that all jobs have ended.
    """

    def __init__(self, count: int, workers: int = 1) -> None:
        self.count, self.skip, self.workers = count, int(count * _SKIP), workers
        self.began = self.first = usage()
        self.done = threading.Event() if workers == 1 else stopped
        self.peak = self.base_kib = self.ended = 0
        self._numbers = itertools.count(1)
        self._running = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        """The worker begins now."""
        if self.workers > 1:
            _told_to_go.wait()
            threading.Thread(target=self._tell, daemon=True).start()
        reset_peak()
        self.base_kib = resident_kib()
        self.began = self.first = self.now()

    def now(self) -> Usage:
        """The clock, and the CPU that the worker has used."""
        return usage()

    def enter(self) -> None:
        """A long job begins."""
        with self._lock:
            self._running += 1
            self.peak = max(self.peak, self._running)
            if self.peak == self._running == self.count:
                emit("progress", text="all run")

    def leave(self) -> None:
        """A long job ends."""
        with self._lock:
            self._running -= 1
        self.tick()

    def tick(self) -> None:
        """A job ends."""
        self.ended = number = next(self._numbers)
        if number == self.skip:
            self.first = self.now()
        elif number == self.count and self.workers == 1:
            self.done.set()

    def _tell(self) -> None:
        while not self.done.wait(_TELL_S):
            emit("ended", jobs=self.ended, cpu_s=self.now().cpu_s)


def marks_for(spec: Spec) -> Marks:
    """The marks of a worker that drains what the specification says."""
    return Marks(spec["count"], spec.get("workers", 1))


def drained(marks: Marks, **facts: Any) -> dict[str, Any]:
    """What a drain came to, now that every result is stored."""
    end: Usage = marks.now()
    return {
        "jobs": marks.count - marks.skip,
        "wall_s": end.at_s - marks.first.at_s,
        "cpu_s": end.cpu_s - marks.first.cpu_s,
        "whole_s": end.at_s - marks.began.at_s,
        "ended": marks.ended,
        "peak": marks.peak,
        "base_kib": marks.base_kib,
        "peak_kib": peak_kib(),
        "end_at_s": end.at_s,
        "end_cpu_s": end.cpu_s,
        **facts,
    }


def _follow_parent() -> None:
    for line in os.fdopen(os.dup(0)):  # not sys.stdin, whose lock a forked child would find taken
        if line.strip() == "stop":
            stopped.set()
        elif line.strip() == "go":
            _told_to_go.set()
    os._exit(3)

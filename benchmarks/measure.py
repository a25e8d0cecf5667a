"""What the operating system says that processes used, and what samples of it come to.

Standard library only: drivers import this inside the peers' own environments.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "Usage",
    "cpu_of",
    "cpu_s",
    "descendants",
    "peak_kib",
    "quantile",
    "raise_file_limit",
    "reset_peak",
    "resident_kib",
    "tree_cpu_s",
    "usage",
]

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


class Usage(NamedTuple):
    """An instant: the monotonic clock, and the CPU that this process had used by then, both in seconds."""

    at_s: float
    cpu_s: float


def usage() -> Usage:
    """This process now."""
    return Usage(time.monotonic(), cpu_s())


def cpu_s() -> float:
    """User and system seconds of this process, all threads, and of the children that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def tree_cpu_s(pid: int) -> float:
    """User and system seconds of another process and of all that descend from it, to a clock tick (10 ms).

    Raises FileNotFoundError when the process is gone.
    """
    return cpu_of((pid, *descendants(pid)))


def cpu_of(pids: Iterable[int]) -> float:
    """User and system seconds of these processes, to a clock tick. Raises FileNotFoundError when one is gone."""
    return sum(_ticks(each) for each in pids) / _TICKS


def descendants(pid: int) -> list[int]:
    """The children of a process, their children, and so on."""
    parents = {int(entry.name): _parent(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdigit()}
    found: list[int] = []
    generation = {pid}
    while generation:
        generation = {child for child, parent in parents.items() if parent in generation}
        found += sorted(generation)
    return found


def resident_kib(pid: int | None = None) -> int:
    """Resident memory of a process now, in KiB."""
    return _status_kib("self" if pid is None else str(pid), "VmRSS:")


def peak_kib() -> int:
    """The most resident memory that this process had since `reset_peak`, in KiB."""
    return _status_kib("self", "VmHWM:")


def reset_peak() -> None:
    """Forget the peak of resident memory (proc(5), clear_refs: 5)."""
    (_PROC / "self" / "clear_refs").write_text("5")


def raise_file_limit() -> int:
    """Lift this process's limit of open files as far as it may; the limit now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which the share `q` of the values lies: the nearest rank, no interpolation."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold spaces and brackets itself."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _ticks(pid: int) -> int:
    return sum(int(field) for field in _stat(pid)[11:15])  # utime stime cutime cstime: fields 14-17 of proc(5)


def _parent(pid: int) -> int:
    try:
        return int(_stat(pid)[1])
    except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
        return 0


def _status_kib(pid: str, field: str) -> int:
    for line in (_PROC / pid / "status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise KeyError(field)

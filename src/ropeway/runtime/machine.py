"""What this machine has to share out, as a process here may use it, and what a thread of it costs.

The price of a thread is measured, in a fresh interpreter, and not taken from folklore: the 8 MiB of stack that
`ulimit -s` speaks of are address space; what a waiting thread really takes is what it touched.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

__all__ = [
    "FALLBACK_THREAD_BYTES",
    "THREADS_PER_PROCESS",
    "UNLIMITED",
    "Machine",
    "measure_thread_bytes",
    "read_machine",
    "size_text",
]

THREADS_PER_PROCESS = 2_500  # measured: 4,000 threads start in 1 s, 8,000 in 4 s; past the knee, more processes pay
MAPS_PER_THREAD = 3  # measured: stack, guard page and arena, against vm.max_map_count
FALLBACK_THREAD_BYTES = 32 * 1024  # twice what a bare thread takes on Linux, where it cannot be measured
UNLIMITED = 1 << 60  # what cgroup v1 writes for "no limit" is near 2^63

PROBE = """
import json, resource, sys, threading
count, stack = int(sys.argv[1]), int(sys.argv[2])
threading.stack_size(stack)
pages = lambda: int(open('/proc/self/statm').read().split()[1])
gate, ready = threading.Event(), threading.Semaphore(0)
def job():
    json.dumps({'text': 'x' * 200, 'steps': list(range(20))})
    ready.release()
    gate.wait()
def start(n):
    for _ in range(n): threading.Thread(target=job, daemon=True).start()
    for _ in range(n): ready.acquire()
start(8)                                     # what the first threads load and allocate is not the price of one
before = pages()
start(count)
print((pages() - before) * resource.getpagesize() // count)
"""


class Machine(msgspec.Struct, frozen=True):
    """What there is to share out.

    Attributes:
        memory_bytes: of the machine, or of the container when that is less.
        cores: what this process may use, as a fraction where a CPU quota says so.
        threads: the most threads that may be started here, over all processes.
        threads_per_process: the most of one process.
        limits: where each of these comes from, in words.
    """

    memory_bytes: int
    cores: float
    threads: int
    threads_per_process: int
    limits: tuple[str, ...] = ()


def measure_thread_bytes(count: int = 512, stack_bytes: int = 256 * 1024) -> int:
    """Resident bytes of a waiting Python thread, measured on `count` of them in a fresh interpreter.

    Takes about 0.2 s. Where it cannot be measured (no /proc, or too few threads allowed) a careful guess comes back.
    """
    command = [sys.executable, "-I", "-S", "-c", PROBE, str(count), str(stack_bytes)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603 - our own
        return max(int(done.stdout), 1024)
    except (OSError, ValueError, subprocess.SubprocessError):
        return FALLBACK_THREAD_BYTES


def read_machine(root: Path = Path("/")) -> Machine:
    """This machine as a process here may use it: memory, cores and threads under cgroups, ulimits and the kernel's own.

    `root` is where `proc` and `sys` are found; tests give another.
    """
    memory, memory_from = _least(_memory_limits(root))
    cores, cores_from = _least(_core_limits(root))
    threads, threads_from = _least(_thread_limits(root))
    maps = _number(root / "proc/sys/vm/max_map_count", UNLIMITED)
    return Machine(
        int(memory),
        cores,
        int(threads),
        min(THREADS_PER_PROCESS, int(threads), maps // MAPS_PER_THREAD),
        (
            f"{size_text(int(memory))} of memory ({memory_from})",
            f"{cores:g} cores ({cores_from})",
            f"{int(threads):,} threads ({threads_from})",
        ),
    )


def size_text(count: int) -> str:
    """Bytes for people."""
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count >= size:
            return f"{count / size:.1f} {unit}".replace(".0 ", " ")
    return f"{count} B"


def _memory_limits(root: Path) -> Iterator[tuple[float, str]]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            yield int(line.split()[1]) * 1024, "the machine's"
    for path in _cgroup_files(root, "memory", "memory.max", "memory.limit_in_bytes"):
        yield _number(path, UNLIMITED), f"the container's, {path.name}"
    if root == Path("/"):
        yield _soft_limit(resource.RLIMIT_AS), "ulimit -v"


def _core_limits(root: Path) -> Iterator[tuple[float, str]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield cores, "that this process may run on"
    for path in _cgroup_files(root, "cpu", "cpu.max", "cpu.cfs_quota_us"):
        words = " ".join(_lines(path)).split()
        period = words[1] if len(words) > 1 else str(_number(path.with_name("cpu.cfs_period_us"), 100_000))
        if words and words[0].isdigit():
            yield int(words[0]) / int(period), f"the container's, {path.name}"


def _thread_limits(root: Path) -> Iterator[tuple[float, str]]:
    for name in ("threads-max", "pid_max"):
        yield _number(root / "proc/sys/kernel" / name, UNLIMITED), f"kernel.{name}"
    for path in _cgroup_files(root, "pids", "pids.max", "pids.max"):
        yield _number(path, UNLIMITED), f"the container's, {path.name}"
    if root == Path("/"):
        yield _soft_limit(resource.RLIMIT_NPROC), "ulimit -u"


def _cgroup_files(root: Path, controller: str, v2_name: str, v1_name: str) -> Iterator[Path]:
    """The limit files of this process's cgroup and of all above it: the strictest holds."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, place = line.split(":", 2)
        if not controllers:
            top, name = root / "sys/fs/cgroup", v2_name
        elif controller in controllers.split(","):
            top, name = root / "sys/fs/cgroup" / controller, v1_name
        else:
            continue
        group = top / place.lstrip("/")
        yield from (folder / name for folder in (group, *group.parents) if folder.is_relative_to(top))


def _least(limits: Iterator[tuple[float, str]]) -> tuple[float, str]:
    return min(limits, key=lambda limit: limit[0], default=(UNLIMITED, "no limit found"))


def _soft_limit(which: int) -> float:
    soft = resource.getrlimit(which)[0]
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def _number(path: Path, default: int) -> int:
    word = next(iter(" ".join(_lines(path)).split()), "")
    return int(word) if word.isdigit() else default


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []

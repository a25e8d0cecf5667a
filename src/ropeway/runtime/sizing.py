"""How many workers, threads and jobs at once a machine bears: advice from its memory, cores and limits.

Three walls bound the jobs in flight, and the nearest one decides:

    memory   what is left beside the processes, divided by what one job takes (threads and its own data)
    CPU      cores / CPU seconds a job x seconds a job (Little's law): more in flight would only wait for a core
    threads  what the kernel lets this machine, user and container start

The price of a thread is measured here, in a fresh interpreter, and not taken from folklore: the 8 MiB of stack that
`ulimit -s` speaks of are address space; what a waiting thread really takes is what it touched.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

__all__ = ["Advice", "Machine", "Need", "advise", "measure_thread_bytes", "read_machine"]

MEMORY_SHARE = 0.7  # of the memory: the rest is for the system, the page cache of the store, and bursts
CPU_SHARE = 0.8  # of the cores: the gateway and the store need some too
THREAD_SHARE = 0.9  # of a thread limit: what else runs here needs some too
THREADS_PER_PROCESS = 2_500  # measured: 4,000 threads start in 1 s, 8,000 in 4 s; past the knee, more processes pay
TASKS_PER_PROCESS = 20_000  # coroutines on one loop, as the benchmarks run them
MAPS_PER_THREAD = 3  # measured: stack, guard page and arena, against vm.max_map_count
FALLBACK_THREAD_BYTES = 32 * 1024  # twice what a bare thread takes on Linux, where it cannot be measured
TASK_BYTES = 8 * 1024  # a coroutine with its context, task and timer: measured with 7,000 of them in a worker
BLOCKING_JOB_BYTES = 16 * 1024  # measured beside the threads of 1,000 blocking jobs in a worker
ASYNC_JOB_BYTES = 2 * 1024
PROCESS_BYTES = 58 * 1024**2  # measured: a worker, gateway or supervisor of Ropeway before its first job
BESIDE_WORKERS = 2  # a gateway and a supervisor
UNLIMITED = 1 << 60  # what cgroup v1 writes for "no limit" is near 2^63

PROBE = """
import json, sys, threading
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
print((pages() - before) * __import__('resource').getpagesize() // count)
gate.set()
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


class Need(msgspec.Struct, frozen=True):
    """What one job takes.

    Attributes:
        seconds: from start to end.
        blocking: on threads; otherwise on the event loop.
        threads: how many it occupies at once; 2 for two blocking steps side by side.
        cpu_s: CPU seconds of one job, its own work and the queue's together.
        own_bytes: memory of its own beside threads: inputs, buffers, responses.
    """

    seconds: float
    blocking: bool = True
    threads: int = 1
    cpu_s: float = 0.001
    own_bytes: int = BLOCKING_JOB_BYTES

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.cpu_s > 0 and self.threads >= 1 and self.own_bytes >= 0):
            raise ValueError("a job takes some seconds and CPU, at least one thread and no negative memory")


class Advice(msgspec.Struct, frozen=True):
    """How to start workers. `threads_per_worker` is 0 for jobs on the event loop.

    `concurrency` counts jobs in flight over all workers, `jobs_per_s` is what they finish when always full, and
    `reasons` tell which wall decided and how far away the others are.
    """

    workers: int
    threads_per_worker: int
    concurrency: int
    estimated_memory_bytes: int
    jobs_per_s: float
    reasons: tuple[str, ...]

    @property
    def concurrency_per_worker(self) -> int:
        return self.concurrency // self.workers


def advise(
    memory_bytes: int,
    cores: float,
    seconds_per_job: float,
    blocking: bool = True,
    *,
    threads_per_job: int = 1,
    cpu_s_per_job: float = 0.001,
    job_bytes: int | None = None,
    thread_bytes: int = FALLBACK_THREAD_BYTES,
    process_bytes: int = PROCESS_BYTES,
    threads: int = UNLIMITED,
    threads_per_process: int = THREADS_PER_PROCESS,
    wanted: int | None = None,
) -> Advice:
    """How many workers and threads to start for jobs of `seconds_per_job`, and what that comes to.

    Args:
        memory_bytes, cores, threads, threads_per_process: as `read_machine()` tells them, or of a machine to buy.
        threads_per_job, cpu_s_per_job: as in `Need`.
        job_bytes: memory of one job beside its threads; None takes what small jobs were measured to need.
        thread_bytes: resident bytes of a waiting thread; `measure_thread_bytes()` finds them.
        process_bytes: resident bytes of a worker before its first job.
        wanted: jobs in flight that are enough; None asks for as many as the machine bears.

    Raises:
        ValueError: a number is out of range, or the memory does not hold a single worker.
    """
    if job_bytes is None:
        job_bytes = BLOCKING_JOB_BYTES if blocking else ASYNC_JOB_BYTES
    need = Need(seconds_per_job, blocking, threads_per_job, cpu_s_per_job, job_bytes)
    machine = Machine(memory_bytes, cores, threads, threads_per_process)
    if not (cores > 0 and thread_bytes > 0 and process_bytes > 0 and (wanted is None or wanted >= 1)):
        raise ValueError("cores, bytes and the jobs wanted must be above 0")
    per_job = job_bytes + (threads_per_job * thread_bytes if blocking else TASK_BYTES)
    budget = int(memory_bytes * MEMORY_SHARE) - process_bytes * (BESIDE_WORKERS + _base_workers(machine))
    if budget < per_job:
        raise ValueError(f"{_size(memory_bytes)} do not hold a gateway, {_base_workers(machine)} workers and a job")

    walls = dict(_walls(machine, need, budget // per_job, wanted))
    workers, per_worker = _split(machine, need, min(walls.values()))
    used = process_bytes * (workers + BESIDE_WORKERS) + workers * per_worker * per_job
    while used > memory_bytes * MEMORY_SHARE and per_worker > 1:  # more workers than the budget had counted on
        per_worker -= max(1, per_worker // 50)
        used = process_bytes * (workers + BESIDE_WORKERS) + workers * per_worker * per_job
    return Advice(
        workers=workers,
        threads_per_worker=per_worker * threads_per_job if blocking else 0,
        concurrency=workers * per_worker,
        estimated_memory_bytes=used,
        jobs_per_s=workers * per_worker / seconds_per_job,
        reasons=tuple(_reasons(walls, machine, need, thread_bytes if blocking else TASK_BYTES)),
    )


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
            f"{_size(int(memory))} of memory ({memory_from})",
            f"{cores:g} cores ({cores_from})",
            f"{int(threads):,} threads ({threads_from})",
        ),
    )


# -- advice


def _base_workers(machine: Machine) -> int:
    """One process a core at the least: a Python process runs on one core at a time."""
    return max(1, math.ceil(machine.cores))


def _walls(machine: Machine, need: Need, by_memory: int, wanted: int | None) -> Iterator[tuple[str, int]]:
    yield "memory", by_memory
    yield "CPU", max(1, int(machine.cores * CPU_SHARE / need.cpu_s * need.seconds))
    if need.blocking:
        yield "threads", max(1, int(machine.threads * THREAD_SHARE) // need.threads)
    if wanted is not None:
        yield "what was asked for", wanted


def _split(machine: Machine, need: Need, concurrency: int) -> tuple[int, int]:
    """Workers, and jobs in flight in each: no process above its cap, no core idle."""
    cap = machine.threads_per_process // need.threads if need.blocking else TASKS_PER_PROCESS
    workers = max(min(_base_workers(machine), concurrency), math.ceil(concurrency / max(cap, 1)))
    return workers, max(1, concurrency // workers)


def _reasons(walls: dict[str, int], machine: Machine, need: Need, unit_bytes: int) -> Iterator[str]:
    nearest = min(walls, key=lambda wall: walls[wall])
    told = {
        "memory": f"{MEMORY_SHARE:.0%} of {_size(machine.memory_bytes)}, {_price(need, unit_bytes)}",
        "CPU": f"{CPU_SHARE:.0%} of {machine.cores:g} cores, {need.cpu_s * 1000:g} ms of them in {need.seconds:g} s",
        "threads": f"{THREAD_SHARE:.0%} of {machine.threads:,} threads, {need.threads} a job",
        "what was asked for": "no more is needed",
    }
    yield f"{nearest} decides: {walls[nearest]:,} jobs at once ({told[nearest]})"
    for wall, jobs in walls.items():
        if wall != nearest and jobs < UNLIMITED // 1024:
            yield f"{wall} would bear {jobs:,} ({told[wall]})"


def _price(need: Need, unit_bytes: int) -> str:
    if need.blocking:
        return f"{need.threads} x {_size(unit_bytes)} of thread and {_size(need.own_bytes)} a job"
    return f"{_size(unit_bytes + need.own_bytes)} a job on the event loop"


# -- limits


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
    words = " ".join(_lines(path)).split()
    return int(words[0]) if words and words[0].isdigit() else default


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _size(count: int) -> str:
    """Bytes for people."""
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count >= size:
            return f"{count / size:.1f} {unit}".replace(".0 ", " ")
    return f"{count} B"

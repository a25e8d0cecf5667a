"""How many workers, threads and jobs at once a machine bears: advice from its memory, cores and limits.

Three walls bound the jobs in flight, and the nearest one decides:

    memory   what is left beside the processes, divided by what one job takes (threads and its own data)
    CPU      cores / CPU seconds a job x seconds a job (Little's law): more in flight would only wait for a core
    threads  what the kernel lets this machine, user and container start

What the machine has and a thread costs, `machine` finds out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from ropeway.runtime.machine import (
    FALLBACK_THREAD_BYTES,
    THREADS_PER_PROCESS,
    UNLIMITED,
    Machine,
    measure_thread_bytes,
    read_machine,
    size_text,
)

__all__ = ["Advice", "Machine", "Need", "advise", "advise_here", "measure_thread_bytes", "read_machine"]

MEMORY_SHARE = 0.7  # of the memory: the rest is for the system, the page cache of the store, and bursts
CPU_SHARE = 0.8  # of the cores: the gateway and the store need some too
THREAD_SHARE = 0.9  # of a thread limit: what else runs here needs some too
TASKS_PER_PROCESS = 20_000  # coroutines on one loop, as the benchmarks run them
TASK_BYTES = 8 * 1024  # a coroutine with its context, task and timer: measured with 7,000 of them in a worker
BLOCKING_JOB_BYTES = 16 * 1024  # measured beside the threads of 1,000 blocking jobs in a worker
ASYNC_JOB_BYTES = 2 * 1024
PROCESS_BYTES = 58 * 1024**2  # measured: a worker, gateway or supervisor of Ropeway before its first job
BESIDE_WORKERS = 2  # a gateway and a supervisor


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
    budget = int(memory_bytes * MEMORY_SHARE) - process_bytes * BESIDE_WORKERS
    base = _base_workers(machine)
    if budget < base * process_bytes + per_job:
        raise ValueError(f"{size_text(memory_bytes)} do not hold a gateway, {base} workers and a job")

    walls = dict(_walls(machine, need, (budget - base * process_bytes) // per_job, wanted))
    workers, per_worker = _split(machine, need, min(walls.values()), budget // (process_bytes + per_job))
    per_worker = min(per_worker, (budget - workers * process_bytes) // (workers * per_job))
    return Advice(
        workers=workers,
        threads_per_worker=per_worker * threads_per_job if blocking else 0,
        concurrency=workers * per_worker,
        estimated_memory_bytes=process_bytes * (workers + BESIDE_WORKERS) + workers * per_worker * per_job,
        jobs_per_s=workers * per_worker / seconds_per_job,
        reasons=tuple(_reasons(walls, machine, need, thread_bytes if blocking else TASK_BYTES)),
    )


def advise_here(
    seconds_per_job: float,
    blocking: bool = True,
    *,
    threads_per_job: int = 1,
    cpu_s_per_job: float = 0.001,
    wanted: int | None = None,
) -> Advice:
    """`advise` for this machine, with what it has, allows, and takes for a thread. About 0.2 s for blocking jobs."""
    machine = read_machine()
    return advise(
        machine.memory_bytes,
        machine.cores,
        seconds_per_job,
        blocking,
        threads_per_job=threads_per_job,
        cpu_s_per_job=cpu_s_per_job,
        thread_bytes=measure_thread_bytes() if blocking else FALLBACK_THREAD_BYTES,
        threads=machine.threads,
        threads_per_process=machine.threads_per_process,
        wanted=wanted,
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


def _split(machine: Machine, need: Need, concurrency: int, most_workers: int) -> tuple[int, int]:
    """Workers, and jobs in flight in each: no process above its cap, no core idle, no worker without room."""
    cap = max(machine.threads_per_process // need.threads if need.blocking else TASKS_PER_PROCESS, 1)
    workers = min(max(min(_base_workers(machine), concurrency), math.ceil(concurrency / cap)), most_workers)
    return workers, min(max(1, concurrency // workers), cap)


def _reasons(walls: dict[str, int], machine: Machine, need: Need, unit_bytes: int) -> Iterator[str]:
    nearest = min(walls, key=lambda wall: walls[wall])
    told = {
        "memory": f"{MEMORY_SHARE:.0%} of {size_text(machine.memory_bytes)}, {_price(need, unit_bytes)}",
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
        return f"{need.threads} x {size_text(unit_bytes)} of thread and {size_text(need.own_bytes)} a job"
    return f"{size_text(unit_bytes + need.own_bytes)} a job on the event loop"

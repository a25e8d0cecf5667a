"""Sizing advice: the nearest wall decides, and the limits that hold here are found."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropeway.runtime.machine import FALLBACK_THREAD_BYTES
from ropeway.runtime.sizing import Advice, Machine, advise, advise_here, measure_thread_bytes, read_machine

GIB = 1024**3
MIB = 1024**2


def advice_for(machine: Machine, seconds: float = 2.5, *, wanted: int | None = None) -> Advice:
    return advise(
        machine.memory_bytes,
        machine.cores,
        seconds,
        threads=machine.threads,
        threads_per_process=machine.threads_per_process,
        wanted=wanted,
    )


def test_the_cpu_decides_on_a_machine_with_memory_to_spare() -> None:
    """Little's law: 80 % of 2 cores at 1 ms a job is 1,600 jobs/s, and so 4,000 of 2.5 s in flight."""
    advice = advise(24 * GIB, 2, 2.5)
    assert advice.concurrency == 4_000
    assert advice.jobs_per_s == 1_600
    assert "CPU decides" in advice.reasons[0]


def test_memory_decides_where_it_is_short() -> None:
    """512 MiB hold a gateway, two workers and a few thousand threads less than the CPU would bear."""
    small = advise(512 * MIB, 2, 60)
    assert "memory decides" in small.reasons[0]
    assert small.estimated_memory_bytes <= 512 * MIB
    assert small.concurrency < advise(24 * GIB, 2, 60).concurrency


def test_threads_decide_where_the_container_allows_few() -> None:
    """A pids limit of 1,000 leaves 900 for threads; with two threads a job that is 450 jobs."""
    advice = advise(24 * GIB, 2, 2.5, threads_per_job=2, threads=1_000)
    assert "threads decides" in advice.reasons[0]
    assert advice.concurrency == 450
    assert advice.workers * advice.threads_per_worker == 900


def test_no_process_gets_more_threads_than_one_bears() -> None:
    """4,000 jobs of two threads are spread so that no process passes its cap."""
    advice = advise(24 * GIB, 2, 2.5, threads_per_job=2, threads_per_process=2_500)
    assert (advice.workers, advice.threads_per_worker) == (4, 2_000)
    assert advice.concurrency_per_worker == 1_000


def test_no_core_is_left_idle() -> None:
    """A process runs Python on one core: there are at least as many workers as cores, if there are jobs for them."""
    assert advise(24 * GIB, 8, 0.1).workers == 8
    assert advise(24 * GIB, 8, 0.1, wanted=1).workers == 1


def test_what_was_asked_for_is_enough() -> None:
    """The advice stops at the jobs wanted, and still tells what the machine would bear."""
    advice = advise(24 * GIB, 2, 2.5, wanted=100)
    assert advice.concurrency == 100
    assert any("CPU would bear 4,000" in reason for reason in advice.reasons)


def test_jobs_on_the_event_loop_need_no_threads() -> None:
    """Async jobs are counted by their own memory, and the thread limit does not hold them back."""
    advice = advise(24 * GIB, 2, 2.5, blocking=False, threads=10)
    assert (advice.workers, advice.threads_per_worker, advice.concurrency) == (2, 0, 4_000)


@pytest.mark.parametrize(
    "numbers",
    [
        {"memory_bytes": 16 * MIB},
        {"cores": 0},
        {"seconds_per_job": 0},
        {"seconds_per_job": float("nan")},
        {"cpu_s_per_job": 0},
        {"threads_per_job": 0},
        {"thread_bytes": 0},
        {"job_bytes": -1},
        {"wanted": 0},
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, float]) -> None:
    """No advice is given for a machine that holds no worker, nor for a job that takes nothing."""
    with pytest.raises(ValueError, match=r"\w"):
        advise(**{"memory_bytes": 24 * GIB, "cores": 2, "seconds_per_job": 2.5, **numbers})  # type: ignore[arg-type]


@given(
    memory=st.integers(64 * MIB, 2_000 * GIB),
    cores=st.floats(0.1, 256),
    seconds=st.floats(1e-4, 1e5),
    blocking=st.booleans(),
    threads_per_job=st.integers(1, 64),
    cpu_s=st.floats(1e-6, 10),
    threads=st.integers(1, 200_000),
    threads_per_process=st.integers(1, 10_000),
    wanted=st.none() | st.integers(1, 1_000_000),
)
def test_the_advice_always_fits(
    memory: int,
    cores: float,
    seconds: float,
    blocking: bool,
    threads_per_job: int,
    cpu_s: float,
    threads: int,
    threads_per_process: int,
    wanted: int | None,
) -> None:
    """Whatever machine and job: within the memory, no process above its cap, a job at least in each worker."""
    try:
        advice = advise(
            memory,
            cores,
            seconds,
            blocking,
            threads_per_job=threads_per_job,
            cpu_s_per_job=cpu_s,
            threads=threads,
            threads_per_process=threads_per_process,
            wanted=wanted,
        )
    except ValueError as error:
        assert "do not hold" in str(error)
        return
    assert advice.estimated_memory_bytes <= memory
    assert advice.concurrency >= advice.workers >= 1
    assert advice.threads_per_worker <= max(threads_per_process, threads_per_job)
    assert wanted is None or advice.concurrency <= wanted


def test_a_thread_is_measured_and_not_guessed() -> None:
    """A waiting thread takes at least the two pages it must touch, and nowhere near the stack it may grow to."""
    measured = measure_thread_bytes(64)
    assert 8 * 1024 <= measured <= 128 * 1024
    assert measured != FALLBACK_THREAD_BYTES


def test_what_cannot_be_measured_is_guessed_with_care(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no interpreter can be started, or threads are refused, the guess is on the safe side."""
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert measure_thread_bytes(64) == FALLBACK_THREAD_BYTES


def test_advice_for_this_machine_needs_no_figures() -> None:
    """What the machine has is read, and a thread is measured."""
    advice = advise_here(2.5, threads_per_job=2, wanted=10)
    assert 1 <= advice.concurrency <= 10
    assert advice.threads_per_worker * advice.workers == 2 * advice.concurrency
    assert advise_here(2.5, blocking=False, wanted=10).threads_per_worker == 0


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MACHINE = {
    "proc/meminfo": "MemTotal:       8388608 kB\nMemFree: 1 kB\n",
    "proc/sys/kernel/threads-max": "60000\n",
    "proc/sys/kernel/pid_max": "32768\n",
    "proc/sys/vm/max_map_count": "6000\n",
}


def test_the_machine_is_read() -> None:
    """This very machine has memory, at least a part of a core, and may start threads."""
    machine = read_machine()
    assert machine.memory_bytes > 64 * MIB
    assert machine.cores > 0
    assert machine.threads >= machine.threads_per_process >= 1


def test_the_strictest_limit_holds(tmp_path: Path) -> None:
    """Of the machine's thread limits the lowest counts, and the maps that a process may have bound its threads."""
    machine = read_machine(write(tmp_path, MACHINE))
    assert machine.memory_bytes == 8 * GIB
    assert machine.threads == 32_768
    assert machine.threads_per_process == 2_000
    assert "32,768 threads (kernel.pid_max)" in machine.limits


def test_a_container_of_cgroup_v2_is_seen(tmp_path: Path) -> None:
    """Memory, CPU quota and pids of this cgroup or of any above it; `max` is no limit."""
    files = {
        "proc/self/cgroup": "0::/pod/app\n",
        "sys/fs/cgroup/pod/memory.max": "1073741824\n",
        "sys/fs/cgroup/pod/app/memory.max": "max\n",
        "sys/fs/cgroup/pod/app/cpu.max": "50000 100000\n",
        "sys/fs/cgroup/pod/app/pids.max": "500\n",
    }
    machine = read_machine(write(tmp_path, MACHINE | files))
    assert (machine.memory_bytes, machine.cores, machine.threads) == (GIB, 0.5, 500)
    assert "1 GiB of memory (the container's, memory.max)" in machine.limits


def test_a_container_of_cgroup_v1_is_seen(tmp_path: Path) -> None:
    """The older layout has a tree for each controller, and writes a huge number for no limit."""
    files = {
        "proc/self/cgroup": "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n2:pids:/\n",
        "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "2147483648\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us": "150000\n",
        "sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us": "100000\n",
    }
    machine = read_machine(write(tmp_path, MACHINE | files))
    assert machine.memory_bytes == 2 * GIB
    assert machine.cores <= 1.5


def test_an_unlimited_quota_is_no_limit(tmp_path: Path) -> None:
    """`-1` in cgroup v1 and `max` in v2 leave the cores as they are."""
    here = read_machine().cores
    v2 = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}
    assert read_machine(write(tmp_path, MACHINE | v2)).cores >= here


def test_small_containers_get_small_advice(tmp_path: Path) -> None:
    """End to end: a half-core container of 1 GiB and 500 threads is told 450 jobs at once, in one worker."""
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "1073741824\n",
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
        "sys/fs/cgroup/pids.max": "500\n",
    }
    advice = advice_for(read_machine(write(tmp_path, MACHINE | files)))
    assert (advice.workers, advice.concurrency) == (1, 450)

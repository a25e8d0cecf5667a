"""Memory of children: limits that are kept, and who is told what."""

from __future__ import annotations

import os
from pathlib import Path

from process_app import app
from runtime_support import stage

from ropeway.runtime.process.fate import verdict_on
from ropeway.runtime.process.isolate import Death
from ropeway.runtime.process.memory import held_bytes, oom_kills

MIB = 1 << 20


async def test_a_child_that_holds_too_much_is_killed() -> None:
    """The job fails with `out_of_memory` and how much it was, a retry is spent and no crash; the next one runs."""
    async with stage(app) as on:
        await on.work(queues=("hogs",))
        job_id = await on.submit("hog", mib=600)
        error = await on.failure(job_id)
        assert (error.code, error.signal, error.exit_code) == ("out_of_memory", None, None)
        assert "and may hold 256 (memory_mib)" in error.message
        assert (await on.job(job_id)).crashes == 0
        assert await on.output("hog", mib=16) == 16


async def test_more_than_may_be_asked_for_is_refused_where_it_is() -> None:
    """With `data_mib` the code itself gets MemoryError, and its traceback says where; its child is replaced."""
    async with stage(app) as on:
        await on.work(queues=("bounded",))
        error = await on.error("bounded", mib=4096)
        assert (error.code, error.type) == ("out_of_memory", "MemoryError")
        assert "in bounded" in (error.traceback or "")
        assert await on.output("bounded", mib=8) == 8
        assert on.workers[0].snapshot().children_started == 2


def test_the_kernels_own_kill_is_told_apart() -> None:
    """A SIGKILL that nobody of ours sent is for the want of memory, if the kernel has just killed for that."""
    killed = Death(-9)
    out_of_memory = verdict_on(killed, None, out_of_memory=True)
    assert (out_of_memory.error.code, out_of_memory.error.signal, out_of_memory.crashed) == (
        "out_of_memory",
        "SIGKILL",
        False,
    )
    crashed = verdict_on(killed, None, out_of_memory=False)
    assert (crashed.error.code, crashed.error.signal, crashed.crashed) == ("process_crashed", "SIGKILL", True)
    segfault = verdict_on(Death(-11), None, out_of_memory=True)
    assert segfault.error.code == "process_crashed"


def test_what_is_held_is_what_nobody_can_take(tmp_path: Path) -> None:
    """Anonymous and shared pages are counted, those of files are not; a process that is gone holds nothing known."""
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "status").write_text("VmRSS:\t 900 kB\nRssAnon:\t 300 kB\nRssFile:\t 500 kB\nRssShmem:\t 100 kB\n")
    assert held_bytes(7, tmp_path) == 400 * 1024
    (folder / "status").write_text("State:\tZ (zombie)\n")
    assert held_bytes(7, tmp_path) is None
    assert held_bytes(8, tmp_path) is None
    assert (held_bytes(os.getpid()) or 0) > MIB


def test_the_kernels_count_is_read(tmp_path: Path) -> None:
    """Where there is none it is 0."""
    assert oom_kills(tmp_path) == 0
    (tmp_path / "vmstat").write_text("pgfault 7\noom_kill 3\n")
    assert oom_kills(tmp_path) == 3

"""Children as a pool: recycled, grown and shrunk, pinned to devices, warm ones first."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from process_app import app
from runtime_support import eventually, stage

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App
from ropeway.runtime.process import pool as pools
from ropeway.runtime.process.devices import dealt, found_devices, pinned


async def test_a_child_is_replaced_after_so_many_jobs() -> None:
    """`max_jobs_per_child`: the next job has a new process, and none is lost."""
    async with stage(app) as on:
        await on.work(queues=("few",))
        pids = [await on.output("few") for _ in range(5)]
        assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
        assert on.workers[0].snapshot().children_recycled == 2


async def test_a_child_that_has_grown_fat_is_replaced() -> None:
    """`max_mib_per_child`: after the job, which is well."""
    async with stage(app) as on:
        await on.work(queues=("fat",))
        first = await on.output("fat", mib=256)
        second = await on.output("fat", mib=1)
        assert first != second == await on.output("fat", mib=1)


async def test_children_grow_with_what_waits_and_end_when_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is warm; another comes for a second job at once, and goes when it has had nothing to do."""
    monkeypatch.setattr(pools, "COLD_S", 0.01)
    monkeypatch.setattr(pools, "IDLE_S", 0.01)
    path = tmp_path / "go"
    async with stage(app) as on:
        worker = await on.work(queues=("held",), children=2)
        assert worker.snapshot().children == 1
        jobs = [await on.submit("hold", path=str(path)) for _ in range(2)]
        await eventually(lambda: worker.snapshot().children == 2, "another child is there")
        path.touch()
        for job_id in jobs:
            assert (await on.ended(job_id)).state is State.succeeded
        await eventually(lambda: worker.snapshot().children == 1, "the idle child is gone")


async def test_no_more_children_than_the_worker_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third job waits in its queue, where another worker could take it."""
    monkeypatch.setattr(pools, "COLD_S", 0.0)
    path = tmp_path / "go"
    async with stage(app) as on:
        worker = await on.work(queues=("held",), children=2)
        jobs = [await on.submit("hold", path=str(path)) for _ in range(3)]
        for job_id in jobs[:2]:
            await on.when(job_id, lambda job: job.state is State.running, "it runs")
        await eventually(lambda: worker.snapshot().children == 2, "two children are there")
        assert (await on.job(jobs[2])).state is State.queued
        path.touch()
        for job_id in jobs:
            await on.ended(job_id)
        assert worker.snapshot().children_started == 2


async def test_a_warm_worker_takes_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose children are busy asks for no job that would wait for one, while another has one idle."""
    monkeypatch.setattr(pools, "COLD_S", 3600.0)
    first, second = tmp_path / "first", tmp_path / "second"
    async with stage(app) as on:
        await on.work(queues=("held",), children=2)
        one = await on.submit("hold", path=str(first))
        await on.when(one, lambda job: job.state is State.running, "it runs")
        waits = await on.submit("hold", path=str(second))
        assert on.crew.isolated.pools.by_task["hold"].free == 0
        await on.work(queues=("held",), children=2)
        taken = await on.when(waits, lambda job: job.state is State.running, "the warm one has it")
        assert taken.worker == "worker-2"
        first.touch()
        second.touch()
        for job_id in (one, waits):
            await on.ended(job_id)


async def test_each_device_has_a_child_that_sees_no_other(tmp_path: Path) -> None:
    """Two jobs at once run on the two devices; both children are there from the start."""
    path = tmp_path / "go"
    async with stage(app) as on:
        worker = await on.work(queues=("gpu",), devices=("4", "GPU-7f"))
        await eventually(lambda: worker.snapshot().children == 2, "there is a child for each device")
        jobs = [await on.submit("seen", path=str(path)) for _ in range(2)]
        await eventually(lambda: len(list(tmp_path.glob("go.*"))) == 2, "both run at once")
        path.touch()
        assert {(await on.ended(job_id)).output for job_id in jobs} == {'"4"', '"GPU-7f"'}


async def test_a_child_for_the_cpu_sees_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """`device="cpu"`: also where the worker has some."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    async with stage(app) as on:
        await on.work(queues=("blind", "gpu"))
        assert await on.output("blind") == ""
        assert await on.output("seen") in ("0", "1")


def test_devices_are_found(tmp_path: Path) -> None:
    """Those that CUDA_VISIBLE_DEVICES names, else NVIDIA's nodes, which CUDA counts from 0."""
    for name in ("nvidia1", "nvidia3", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert found_devices({}, tmp_path) == ("0", "1")
    assert found_devices({"CUDA_VISIBLE_DEVICES": "2, GPU-8"}, tmp_path) == ("2", "GPU-8")
    assert found_devices({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == ()
    assert found_devices({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == ()
    assert found_devices({}, tmp_path / "absent") == ()
    assert pinned("3")["CUDA_VISIBLE_DEVICES"] == "3"


def test_devices_are_dealt_out_among_workers() -> None:
    """No device is two workers' own; who gets none has none."""
    assert dealt(("0", "1", "2"), 2) == [("0", "2"), ("1",)]
    assert dealt(("0",), 2) == [("0",), ()]


async def test_tasks_of_a_queue_with_the_same_settings_share_children() -> None:
    """So that they share a model: the eight tasks of this queue have one child."""
    async with stage(app) as on:
        worker = await on.work(queues=("context",))
        await on.output("facts")
        await on.output("steps")
        by_task = on.crew.isolated.pools.by_task
        assert by_task["facts"] is by_task["steps"]
        assert worker.snapshot().children == 1


async def test_an_application_that_cannot_be_imported_is_refused() -> None:
    """One that is made inside a function: the worker says what to do, and leaves."""
    local = App()

    @local.task(run="process")
    def nothing() -> None: ...

    async with stage(local) as on:
        await on.work()
        (error,) = await asyncio.gather(*on.runs, return_exceptions=True)
        assert isinstance(error, InvalidRequest)
        assert "it is not at the top of a module: make it there" in error.detail


async def test_a_child_that_no_longer_starts_gives_jobs_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is back in its queue, no attempt spent, and the worker asks for none before a child is there again."""
    monkeypatch.setattr(pools, "AGAIN", Retry(max_attempts=1000, base_s=3600.0, cap_s=3600.0))
    async with stage(app) as on:
        worker = await on.work(queues=("broken",))
        assert await on.output("weigh") == len("weights")
        monkeypatch.setenv("BROKEN_MODEL", "1")
        (child,) = on.crew.isolated.pools.by_task["weigh"].children
        child.kill()
        await eventually(lambda: worker.snapshot().children == 0, "no child can be started")
        job_id = await on.submit("weigh")
        assert on.crew.isolated.pools.by_task["weigh"].free == 0
        assert (await on.job(job_id)).state is State.queued


async def test_a_job_for_which_no_child_starts_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It came by another queue than its task's own; it has not run, and runs once a child can be started."""
    monkeypatch.setattr(pools, "AGAIN", Retry(max_attempts=1000, base_s=0.01, cap_s=0.01))
    monkeypatch.setenv("BROKEN_MODEL", "1")
    async with stage(app) as on:
        await on.work(queues=("pids",))
        job_id = await on.submit_to("pids", "weigh")
        await on.when(job_id, lambda job: job.runs > 1, "it was given back, and leased again")
        monkeypatch.delenv("BROKEN_MODEL")
        job = await on.ended(job_id)
        assert (job.state, job.attempt, job.crashes) == (State.succeeded, 1, 0)


async def test_a_worker_tells_what_is_warm() -> None:
    """Its card names the tasks that have a child with all they need open, its labels and its devices."""
    async with stage(app) as on:
        await on.work(queues=("pids", "gpu"), devices=("0",), labels=("zone=eu",))
        await on.output("pid")
        await on.crew.announce()
        (card,) = await on.engine.workers()
        assert card.labels == ("device=cpu", "device=gpu", "zone=eu")
        assert card.devices == ("0",)
        assert set(card.warm) == {"pid", "seen"}

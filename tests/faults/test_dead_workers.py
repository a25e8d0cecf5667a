"""Workers that die, stand still, or are killed by their own jobs: what they ran goes on elsewhere, once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ledger import drained, log_of
from programs import HERE, Program

from ropeway import Client, JobFailed, connect
from ropeway.cli.banner import known_tasks
from ropeway.client import JobHandle
from ropeway.domain.event import OUTPUT_DELTA, OUTPUT_RESET, RETRYING, STARTED, STEP_COMPLETED, SUCCEEDED, Event
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine
from servers import Server, until

LEASE_S = 1.0
PATIENCE_S = 60.0

pytestmark = pytest.mark.slow


class Stage:
    """A Valkey, workers as processes, and a client of the engine."""

    def __init__(self, server: Server, folder: Path, engine: Engine, client: Client) -> None:
        self.engine = engine
        self.client = client
        self.cancels = folder / "cancels.txt"
        self.programs: list[Program] = []
        self._server = server
        self._folder = folder

    def lone_worker(self, name: str, lease_s: float) -> Program:
        """A worker without a supervisor, whose silence is noticed after `lease_s`."""
        environment = {"LONE_TTL_MS": str(round(lease_s * 1000))}
        return self._start(name, [sys.executable, str(HERE / "lone_worker.py"), self._server.url], environment)

    def supervised_workers(self, count: int) -> Program:
        sizes = ["--workers", str(count), "--concurrency", "20", "--threads", "2"]
        command = [sys.executable, "-m", "ropeway", "worker", "victim:app", *sizes, "--engine", self._server.url]
        return self._start("supervisor", command, {})

    def _start(self, name: str, argv: list[str], environment: dict[str, str]) -> Program:
        common = {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "VICTIM_CANCELS": str(self.cancels)}
        program = Program(name, argv, common | environment, self._folder)
        program.start()
        self.programs.append(program)
        return program

    async def submit(self, task: str, word: str) -> JobHandle[object]:
        """Submit, as soon as a worker has told of its tasks."""
        async with asyncio.timeout(PATIENCE_S):
            await known_tasks(self.engine)
        return await self.client.submit(task, word=word)

    async def streams(self, job: JobHandle[object], worker: Program) -> None:
        """Until this worker has streamed something of the job."""
        async with asyncio.timeout(PATIENCE_S):
            runs_there = False
            async for event in job.events():
                if event.type == STARTED:
                    runs_there = str(event.data["worker"]).endswith(f"-{worker.pid}")
                if event.type == OUTPUT_DELTA and runs_there:
                    return


@pytest.fixture(name="stage")
async def make_stage(tmp_path: Path) -> AsyncIterator[Stage]:
    server = Server().start()
    engine = connect(server.url)
    await engine.open()
    async with Client(engine) as client:
        stage = Stage(server, tmp_path, engine, client)
        yield stage
        for program in stage.programs:
            await asyncio.to_thread(program.stop)
    await engine.shut()
    server.delete()


async def test_what_a_killed_worker_ran_goes_on_elsewhere(stage: Stage) -> None:
    """kill -9: nobody tells of the death. When the lease is over the attempt ends, and the next one runs to the end."""
    dead = stage.lone_worker("dead", LEASE_S)
    job = await stage.submit("drawl", "abcdefghij")
    await stage.streams(job, dead)
    names = [f"-{dead.pid}"]
    dead.kill()
    alive = stage.lone_worker("alive", 9.0)
    names.append(f"-{alive.pid}")
    assert await job.result(timeout=PATIENCE_S) == "abcdefghij"
    log = await log_of(stage.engine, job.id)
    assert acts_of(log) == [STARTED, OUTPUT_DELTA, RETRYING, STARTED, OUTPUT_RESET, OUTPUT_DELTA, SUCCEEDED]
    workers = [json.loads(event.data)["worker"] for event in log if event.type == STARTED]
    assert [worker.endswith(name) for worker, name in zip(workers, names, strict=True)] == [True, True]
    (job_now,) = await stage.engine.get(DEFAULT_TENANT, [job.id])
    assert job_now is not None
    assert (job_now.attempt, job_now.crashes) == (2, 1)


async def test_flows_outlive_the_workers_that_run_and_wake_them(stage: Stage) -> None:
    """Parents, children and what comes after, and two workers killed on the way: each child is one job, done once."""
    first = stage.lone_worker("first", LEASE_S)
    words = ["abc", "abca", "xyz"]
    parents = [await stage.submit("assemble", word) for word in words]
    last = [await stage.client.submit("echo", word=parent.output) for parent in parents]
    for parent in parents:
        await waits(stage, parent)
    first.kill()
    second = stage.lone_worker("second", LEASE_S)
    for parent in parents:
        await parent.send("!")
    await begun(stage, "slow_letter", f"-{second.pid}")
    second.kill()
    stage.lone_worker("third", 9.0)
    assert [await job.result(timeout=PATIENCE_S) for job in last] == [f"{word}!" for word in words]
    letters = [job async for job in stage.client.find(task="slow_letter")]
    assert sorted(str(job.output) for job in [await stage.client.get(job.id) for job in letters]) == sorted(
        "abcabcaxyz"
    )
    assert {job.state for job in letters} == {State.succeeded}


async def waits(stage: Stage, job: JobHandle[object]) -> None:
    """Until this job waits for somebody's word."""
    with stage.engine.listen(f"job:{job.id}") as hints:
        async with asyncio.timeout(PATIENCE_S):
            while (await job.get()).state is not State.scheduled:
                await hints.wait(1.0)


async def begun(stage: Stage, task: str, worker: str) -> None:
    """Until a job of this task runs on this worker."""
    with stage.engine.listen("lifecycle") as hints:
        async with asyncio.timeout(PATIENCE_S):
            while not any(
                [str(job.worker).endswith(worker) async for job in stage.client.find(task=task, state="running")]
            ):
                await hints.wait(1.0)


async def test_one_that_slept_through_three_leases_wakes_up_fenced(stage: Stage) -> None:
    """SIGSTOP for three leases, then SIGCONT: nothing of it is written, its task is cancelled, and it works on."""
    sleeper = stage.lone_worker("sleeper", LEASE_S)
    job = await stage.submit("drawl", "abcdefghijklmnopqrstuvwxyz")
    await stage.streams(job, sleeper)
    assert sleeper.pid is not None
    async with paused(sleeper.pid):
        heir = stage.lone_worker("heir", 9.0)
        slept_s = time.monotonic()
        await stage.streams(job, heir)
        await asyncio.to_thread(until, lambda: time.monotonic() > slept_s + 3 * LEASE_S, "three leases are over")
    await asyncio.to_thread(until, said(stage.cancels, f"{job.id} 1 {sleeper.pid}"), "the old task was cancelled")
    assert await job.result(timeout=PATIENCE_S) == "abcdefghijklmnopqrstuvwxyz"
    assert "is lost" in sleeper.log
    log = await log_of(stage.engine, job.id)
    assert acts_of(log) == [STARTED, OUTPUT_DELTA, RETRYING, STARTED, OUTPUT_RESET, OUTPUT_DELTA, SUCCEEDED]
    heir.stop()
    assert await (await stage.submit("echo", "again")).result(timeout=PATIENCE_S) == "again"


async def test_a_killed_worker_leaves_the_output_that_it_had_sent(stage: Stage) -> None:
    """kill -9 in the midst of a stream that nobody may begin again: the failed job offers it as far as it came."""
    dead = stage.lone_worker("dead", LEASE_S)
    job = await stage.submit("drawl_once", "abcdefghij")
    await stage.streams(job, dead)
    dead.kill()
    stage.lone_worker("alive", 9.0)  # does the upkeep
    with pytest.raises(JobFailed) as failed:
        await job.result(timeout=PATIENCE_S)
    assert failed.value.error.code == "worker_lost"
    streamed = "".join(
        json.loads(e.data)["delta"] for e in await log_of(stage.engine, job.id) if e.type == OUTPUT_DELTA
    )
    assert streamed and "abcdefghij".startswith(streamed)
    assert (await job.get()).output == streamed


async def test_a_resumable_stream_of_a_killed_worker_goes_on(stage: Stage) -> None:
    """kill -9: the next worker goes on where the log ends, repeats no step, and readers are told to discard nothing."""
    dead = stage.lone_worker("dead", LEASE_S)
    job = await stage.submit("drawl_on", "abcdefghij")
    await stage.streams(job, dead)
    dead.kill()
    stage.lone_worker("alive", 9.0)
    assert await job.result(timeout=PATIENCE_S) == "abcdefghij"
    log = await log_of(stage.engine, job.id)
    assert "".join(json.loads(event.data)["delta"] for event in log if event.type == OUTPUT_DELTA) == "abcdefghij"
    types = [event.type for event in log]
    assert (types.count(STARTED), types.count(OUTPUT_RESET), types.count(STEP_COMPLETED)) == (2, 0, 1)


@pytest.mark.parametrize("how", ["exit", "kernel"])
async def test_a_job_that_kills_its_workers_fails_and_its_neighbours_go_on(stage: Stage, how: str) -> None:
    """Three workers are its budget; then it is failed, with the reason, and everything beside it ends well."""
    stage.supervised_workers(2)
    before = [await stage.submit("drawl", f"before {n}") for n in range(5)]
    poison = await stage.submit("poison", how)
    beside = [await stage.submit("spell", f"beside {n}") for n in range(20)]
    assert await drained(stage.engine) == 26
    jobs = await stage.engine.get(DEFAULT_TENANT, [job.id for job in (poison, *before, *beside)])
    failed, *others = [job for job in jobs if job is not None]
    assert (failed.state, failed.crashes, failed.attempt) == (State.failed, 3, 3)
    assert '"code":"worker_lost"' in (failed.error or "")
    assert {job.state for job in others} == {State.succeeded}


def acts_of(log: list[Event]) -> list[str]:
    """What happened, in order: a run of outputs is one act."""
    kept = [event.type for event in log if event.type in (STARTED, OUTPUT_DELTA, OUTPUT_RESET, RETRYING, SUCCEEDED)]
    return [act for n, act in enumerate(kept) if act != OUTPUT_DELTA or kept[n - 1] != OUTPUT_DELTA]


def said(file: Path, line: str) -> Callable[[], bool]:
    return lambda: file.exists() and line in file.read_text().splitlines()


@asynccontextmanager
async def paused(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)

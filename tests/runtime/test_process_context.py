"""The context inside a child: what it tells, what it asks of its worker, and what it refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from process_app import app
from runtime_support import stage

from ropeway.blobs import Files
from ropeway.blobs.folder import FolderStore
from ropeway.client import Client
from ropeway.domain.file import reference
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lifecycle import State
from ropeway.engines.inputs import Inputs


async def test_a_child_knows_its_job() -> None:
    """Id, attempt, tenant, queue, task and timeout are the job's."""
    async with stage(app) as on:
        await on.work(queues=("context",))
        job = await on.run("facts")
        assert msgspec.json.decode(job.output or "") == {
            "job_id": job.id,
            "attempt": 1,
            "tenant": DEFAULT_TENANT,
            "queue": "context",
            "task": "facts",
            "timeout": 60.0,
            "cancelled": False,
            "stop_reason": None,
        }


async def test_a_child_tells_how_it_gets_on() -> None:
    """Output, logs and usage reach the job's log; of progress few events, and the last one always."""
    async with stage(app) as on:
        await on.work(queues=("context",))
        job = await on.run("tells")
        assert (job.state, job.output, job.usage) == (State.succeeded, '"one two"', '{"tokens":7,"model":"m"}')
        assert await on.data(job.id, "log") == [{"level": "warning", "message": "a line"}]
        progress = await on.data(job.id, "progress")
        assert progress[0] == {"fraction": 0.5, "step": "half"}
        assert progress[-1] == {"fraction": 1.0, "step": "all"}
        assert len(progress) < 100


async def test_a_child_keeps_files_through_its_worker(tmp_path: Path) -> None:
    """Bytes and paths become artifacts of the job; the child waits until they are kept."""
    store = FolderStore(tmp_path / "files")
    async with stage(app, blobs=store) as on:
        await on.work(queues=("context",))
        job = await on.run("keeps")
        assert job.state is State.succeeded, job.error
        first, second, size = msgspec.json.decode(job.output or "")
        told = await on.data(job.id, "artifact")
        assert [(one["file"], one["name"]) for one in told] == [(first, "plot.txt"), (second, "made.bin")]
        assert (size, told[1]["size"]) == ("5", len(b"of a path"))


async def test_a_child_without_a_store_is_told_so() -> None:
    """What the worker refuses is raised in the child."""
    async with stage(app) as on:
        await on.work(queues=("context",))
        job_id = await on.submit("keeps")
        waiting = await on.when(job_id, lambda job: job.error is not None, "the first attempt has failed")
        assert "FilesNotKept" in (waiting.error or "")


async def test_a_child_reads_what_its_job_is_sent() -> None:
    """In order; and none in time is TimeoutError."""
    async with stage(app) as on:
        await on.work(queues=("context",))
        job_id = await on.submit("hears")
        await on.when(job_id, lambda job: job.state is State.running, "it runs")
        for text in ('"one"', '"two"'):
            await Inputs(on.engine).give(DEFAULT_TENANT, job_id, text)
        assert (await on.ended(job_id)).output == '["one","two","no more"]'


async def test_what_must_be_awaited_is_refused_in_a_child() -> None:
    """`ctx.to_thread` is for async code, and says so."""
    async with stage(app) as on:
        await on.work(queues=("context",))
        assert "must be awaited" in await on.output("awaits")


async def test_a_step_in_a_child_is_not_repeated() -> None:
    """Its result is kept by the worker, and read back by the next attempt."""
    async with stage(app) as on:
        await on.work(queues=("context",))
        assert await on.output("steps") == [1, 2]


async def test_a_child_can_snooze(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The job runs again, and no attempt was spent."""
    monkeypatch.setenv("NAP_MARK", str(tmp_path / "napped"))
    async with stage(app) as on:
        await on.work(queues=("context",))
        job = await on.run("naps")
        assert (job.state, job.output, job.runs) == (State.succeeded, "1", 2)


async def test_a_resumable_task_goes_on_in_a_child() -> None:
    """What an earlier attempt put out is at hand, and stands before what this one does."""
    async with stage(app) as on:
        await on.work(queues=("context",))
        assert await on.output("goes_on") == "half after 'half '"


async def test_a_file_of_the_input_is_a_local_copy_in_a_child(tmp_path: Path) -> None:
    """A path, a file in hand and a text, each from the worker's store."""
    store = FolderStore(tmp_path / "files")
    async with stage(app, blobs=store) as on:
        await on.work(queues=("files",))
        files = Files(on.engine, store)
        kept = [await files.create(DEFAULT_TENANT, pieces(text)) for text in (b"a path", b"in hand", b"a text")]
        path, in_hand, text = (reference(file.id) for file in kept)
        assert await on.output("reads", path=path, file=in_hand, text=text) == ["a path", "in hand", "a text"]


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_a_child_process_submits_jobs_and_gathers_them() -> None:
    """Its worker does so for it; while they run it is free for them, for there is but one."""
    async with stage(app) as on:
        await on.work(queues=("context",), upkeep=True)
        job = await on.run("delegates")
        assert (job.state, job.output) == (State.succeeded, '[["ONE"],["TWO"]]'), job.error
        assert (job.runs, job.attempt) == (2, 1)


async def test_a_child_process_is_told_what_a_submit_refuses() -> None:
    """In the error's own words."""
    async with stage(app) as on:
        await on.work(queues=("context",))
        job_id = await on.submit("loses")
        job = await on.when(job_id, lambda job: job.error is not None, "it fails")
        assert "no worker has announced task 'no_such_task'" in (job.error or "")


async def test_a_child_process_gets_the_outputs_that_its_job_waited_for() -> None:
    """In its input, and in `ctx.after`."""
    async with stage(app) as on, Client(on.engine) as client:
        first = await client.submit(app.tasks["shout"], "one")
        second = await client.with_options(after=first).submit(app.tasks["shout"], "two")
        await on.work(queues=("context",), upkeep=True)
        assert await second.result() == ["TWO", first.id]


async def test_a_child_process_waits_for_an_input_without_holding_a_place() -> None:
    """It is run again when that comes; the time that it may wait is kept as a step."""
    async with stage(app) as on, Client(on.engine) as client:
        await on.work(queues=("context",))
        job_id = await on.submit("approves")
        await on.when(job_id, lambda job: job.state is State.scheduled, "it waits")
        await client.send(job_id, "yes")
        job = await on.ended(job_id)
        assert msgspec.json.decode(job.output or "")[1] == "yes"
        assert len(await on.events(job_id, "step.completed")) == 2

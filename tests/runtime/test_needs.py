"""What a task needs of its worker, and which queues a worker therefore serves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from runtime_support import stage

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.label import lacking, read_labels, written
from ropeway.domain.lifecycle import State
from ropeway.runtime import App, WorkerOptions


def made() -> App:
    app = App()

    @app.task(queue="llama", needs={"model": "llama-8b"})
    async def generate() -> str:
        return "generated"

    @app.task(queue="gpu", device="gpu")
    async def on_device() -> str:
        return "on a device"

    @app.task
    async def plain() -> str:
        return "plain"

    return app


async def test_a_worker_asks_only_for_what_it_can_run(caplog: pytest.LogCaptureFixture) -> None:
    """A queue whose tasks need a label that it lacks is left to others, and that is told once."""
    async with stage(made()) as on:
        await on.work(devices=())
        assert "queue 'llama' needs model=llama-8b; queue 'gpu' needs device=gpu; this worker has device=cpu" in (
            caplog.text
        )
        waits = await on.submit("generate")
        assert await on.output("plain") == "plain"
        assert (await on.job(waits)).state is State.queued
        await on.work(devices=("0",), labels=("model=llama-8b",))
        job = await on.ended(waits)
        assert (job.output, job.worker) == ('"generated"', "worker-2")
        assert await on.output("on_device") == "on a device"


async def test_a_worker_with_nothing_to_serve_does_not_start() -> None:
    """Also when it was told to serve that queue: what is missing is named."""
    async with stage(made()) as on:
        await on.work(queues=("llama", "gpu"), devices=())
        (error,) = await asyncio.gather(*on.runs, return_exceptions=True)
        assert isinstance(error, InvalidRequest)
        assert "there is nothing that this worker could serve: queue 'llama' needs model=llama-8b" in error.detail


async def test_a_job_on_a_wrong_queue_fails_with_what_is_missing() -> None:
    """It came to a worker that lacks a label by another queue than its task's own."""
    async with stage(made()) as on:
        await on.work(devices=())
        error = await on.failure(await on.submit_to("default", "generate"))
        assert (error.code, error.retryable) == ("needs_unmet", False)
        assert "needs model=llama-8b, which this worker has not" in error.message


def test_the_tasks_of_a_queue_need_the_same() -> None:
    """A worker leases from a queue, so another need wants another queue: said where it is declared."""
    app = made()
    with pytest.raises(
        ValueError, match="'odd' needs nothing of its worker and 'generate' model=llama-8b, on the same"
    ):

        @app.task(queue="llama")
        async def odd() -> None: ...

    @app.task(queue="llama", needs={"model": "llama-8b"})
    async def even() -> None: ...

    assert even.card.needs == ("model=llama-8b",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"run": "fork"}, "run is 'loop', 'thread' or 'process', not 'fork'"),
        ({"memory_mib": 100}, "memory_mib is for children, and so for run='process'"),
        ({"device": "cpu"}, "device='cpu' is for children"),
        ({"run": "process", "device": "tpu"}, "device is 'cpu' or 'gpu', not 'tpu'"),
        ({"run": "process", "children": 0}, "children must be at least 1, not 0"),
        ({"run": "process", "max_jobs_per_child": 0}, "max_jobs_per_child must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: Any, message: str) -> None:
    """Where the task is declared."""
    app = App()

    def task() -> None: ...

    with pytest.raises(ValueError, match=message):
        app.task(**settings)(task)


def test_async_code_cannot_run_in_a_child() -> None:
    """A child runs blocking code, one job after the other."""
    app = App()
    with pytest.raises(TypeError, match="is a coroutine and cannot run in a process: write it as a plain `def`"):

        @app.task(run="process")
        async def task() -> None: ...


def test_labels_are_written_one_way() -> None:
    """`key=value`, sorted; a key may come with several values on a worker."""
    assert written({"zone": "eu", "model": "org/llama:8b"}) == ("model=org/llama:8b", "zone=eu")
    assert read_labels(["zone=eu", "model=a", "model=b"]) == ("model=a", "model=b", "zone=eu")
    assert lacking(("a=1", "b=2"), ("b=2", "c=3")) == ("a=1",)


@pytest.mark.parametrize("text", ["zone", "=eu", "zone=", "zo ne=eu", "zone=a,b", "zone=" + "x" * 129])
def test_what_is_no_label_is_refused(text: str) -> None:
    """On a worker, and on a command line."""
    with pytest.raises(InvalidRequest, match="is no label"):
        read_labels([text])
    with pytest.raises(InvalidRequest, match="is no label"):
        WorkerOptions(labels=(text,))

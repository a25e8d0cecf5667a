"""Tasks in processes: what runs there, what it sees, and what it comes to."""

from __future__ import annotations

import os

from process_app import app
from runtime_support import stage

from ropeway.domain.lifecycle import State


async def test_a_task_runs_in_a_process_of_its_own() -> None:
    """It is not ours, and the next job runs in the same one."""
    async with stage(app) as on:
        await on.work(queues=("pids",))
        first, second = await on.output("pid"), await on.output("pid")
        assert first == second != os.getpid()


async def test_a_model_is_opened_once_in_a_child() -> None:
    """Its resources are opened in the child, before its first job, and kept for all that follow."""
    async with stage(app) as on:
        await on.work(queues=("model",))
        (pid, opened_in, calls), second = await on.output("count"), await on.output("count")
        assert (opened_in, calls) == (pid, 1)
        assert second == [pid, pid, 2]
        assert pid != os.getpid()


async def test_a_child_streams_what_its_generator_yields() -> None:
    """Strings become one text, other items a list, as from a thread."""
    async with stage(app) as on:
        await on.work(queues=("streams",))
        assert await on.output("words", text="a b c") == "a b c "
        assert await on.output("numbers", upto=5000) == list(range(5000))
        job = await on.run("words", text="some words")
        assert job.state is State.succeeded
        deltas = await on.data(job.id, "output.delta")
        assert "".join(delta["delta"] for delta in deltas) == "some words "

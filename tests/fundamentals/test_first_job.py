"""The first job: declare a task, submit it, await what it returns."""

from __future__ import annotations

from fundamentals_support import WAIT_S, running

from ropeway import App, State

app = App()


@app.task
async def greet(name: str, punctuation: str = "!") -> str:
    return f"Hello, {name}{punctuation}"


async def test_submit_a_task_and_await_its_result() -> None:
    """`submit` returns as soon as the job is stored; `result` waits for a worker to have run it."""
    async with running(app) as client:
        job = await client.submit(greet, "Ada")
        assert await job.result(timeout=WAIT_S) == "Hello, Ada!"


async def test_submit_by_name() -> None:
    """A program that does not have the function names the task."""
    async with running(app) as client:
        job = await client.submit("greet", name="Grace", punctuation=".")
        assert await job.result(timeout=WAIT_S) == "Hello, Grace."


async def test_look_at_a_job() -> None:
    """A job has an id, a state and its times; anyone who has the id can ask for it later."""
    async with running(app) as client:
        job = await client.submit(greet, "Ada")
        await job.result(timeout=WAIT_S)
        seen = await client.get(job.id)
        assert (seen.task, seen.queue, seen.state, seen.attempt) == ("greet", "default", State.succeeded, 1)
        assert seen.output == "Hello, Ada!"


def test_a_task_is_a_function() -> None:
    """It can be called and tested with no engine at all."""
    assert greet.name == "greet"
    assert greet.bind("Ada") == '{"name":"Ada"}'

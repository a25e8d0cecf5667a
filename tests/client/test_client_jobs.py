"""One suite for the client's face on every transport: submit, look, wait, end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from client_support import GREET, TRANSPORTS, Greeting, Stage, stage

from ropeway.domain.errors import (
    IdempotencyKeyReused,
    InputInvalid,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    JobLive,
    JobNotFound,
    JobNotRetryable,
    TaskNotFound,
    WaitTimeout,
)
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry

UNKNOWN = f"job_{0:032x}"


@pytest.fixture(name="on", params=TRANSPORTS)
async def make_stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(request.param, tmp_path) as made:
        yield made


# -- submit


async def test_a_task_object_is_submitted_with_its_own_arguments_and_gives_its_own_type(on: Stage) -> None:
    """`submit(task, ...)` binds like a call; the result comes back as what the task declares to return."""
    job = await on.client.submit(GREET, "Ada", times=2)
    assignment = await on.hand.take()
    assert assignment.input == '{"name":"Ada","times":2}'
    await on.hand.succeed(assignment, {"text": "hello Ada"})
    assert await job.result(timeout=10) == Greeting("hello Ada")


async def test_a_task_is_submitted_by_name(on: Stage) -> None:
    """`submit("name", field=...)` needs no task object; the result is plain JSON values."""
    job = await on.client.submit("greet", name="Ada")
    body = await job.get()
    assert (body.task, body.queue, body.state, body.input) == ("greet", "hall", State.queued, {"name": "Ada"})
    await on.hand.succeed(await on.hand.take(), {"text": "hello"})
    assert await job.result(timeout=10) == {"text": "hello"}


async def test_json_text_is_submitted_as_it_is(on: Stage) -> None:
    """`submit_json` takes the input as text, for callers that have it so."""
    job = await on.client.submit_json("greet", '{"name": "Ada"}')
    assert (await job.get()).input == {"name": "Ada"}


async def test_a_name_that_nobody_announced_is_refused(on: Stage) -> None:
    """A misspelt task fails at once, not in a queue that nobody serves."""
    with pytest.raises(TaskNotFound, match="greeet"):
        await on.client.submit("greeet", name="Ada")


async def test_input_that_does_not_fit_names_the_fault(on: Stage) -> None:
    """Input by name is checked against the announced schema before it is stored."""
    with pytest.raises(InputInvalid) as caught:
        await on.client.submit("greet", name=5)
    assert [fault.pointer for fault in caught.value.faults] == ["/name"]
    assert [body async for body in on.client.find()] == []


async def test_options_hold_for_the_submits_made_with_them(on: Stage) -> None:
    """`with_options` gives the same face with options; the client itself stays as it was."""
    urgent = on.client.with_options(priority="high", tags=["a", "b"], metadata={"user": "7"}, queue="other")
    body = await (await urgent.submit("greet", name="Ada")).get()
    assert (body.priority, body.tags, body.metadata, body.queue) == ("high", ("a", "b"), {"user": "7"}, "other")
    plain = await (await on.client.submit("greet", name="Ada")).get()
    assert (plain.priority, plain.tags, plain.queue) == ("normal", (), "hall")


async def test_options_are_added_to_options(on: Stage) -> None:
    """A second `with_options` keeps what the first said."""
    body = await (await on.client.with_options(priority="low").with_options(delay=60).submit("greet", name="Ada")).get()
    assert (body.priority, body.state) == ("low", State.scheduled)
    assert body.run_at is not None


async def test_run_options_reach_the_worker(on: Stage) -> None:
    """Timeout, cost and retry policy travel with the job."""
    await on.client.with_options(timeout=5, cost=2.5, retry=Retry(max_attempts=7)).submit("greet", name="Ada")
    options = (await on.hand.take()).options
    assert (options.timeout_s, options.cost, options.retry.max_attempts) == (5, 2.5, 7)


async def test_an_option_out_of_range_is_refused_by_its_name(on: Stage) -> None:
    """What the engine should not be asked is told to the caller, with the field."""
    with pytest.raises(InvalidRequest) as caught:
        await on.client.with_options(timeout=-1).submit("greet", name="Ada")
    assert caught.value.param == "timeout"


async def test_an_idempotency_key_makes_one_job(on: Stage) -> None:
    """The same key with the same body gives the first job back; with another body it is refused."""
    keyed = on.client.with_options(idempotency_key="k1")
    first = await keyed.submit("greet", name="Ada")
    again = await keyed.submit("greet", name="Ada")
    assert (again.id, first.replayed, again.replayed) == (first.id, False, True)
    with pytest.raises(IdempotencyKeyReused):
        await keyed.submit("greet", name="Bob")


@pytest.mark.parametrize("key", ["", "k" * 256, "ключ", "a\nb", " a"])
async def test_what_cannot_stand_in_a_header_is_no_key(on: Stage, key: str) -> None:
    """A key means the same by every way to the engine, so it is refused by every way."""
    with pytest.raises(InvalidRequest, match="idempotency key"):
        await on.client.with_options(idempotency_key=key).submit("greet", name="Ada")


# -- wait


async def test_result_waits_for_the_end(on: Stage) -> None:
    """A waiter that came before the end is woken by it."""
    job = await on.client.submit(GREET, "Ada")
    waiting = asyncio.create_task(job.result(timeout=30))
    assignment = await on.hand.take()
    await on.hand.succeed(assignment, {"text": "x"})
    assert await waiting == Greeting("x")


async def test_a_failed_job_raises_its_error(on: Stage) -> None:
    """`result` of a failed job raises JobFailed with what was recorded."""
    job = await on.client.submit(GREET, "Ada")
    await on.hand.fail(await on.hand.take(), "no voice")
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=10)
    assert (caught.value.job_id, caught.value.error.code, caught.value.error.message) == (
        job.id,
        "task_error",
        "no voice",
    )


async def test_a_cancelled_job_raises_its_reason(on: Stage) -> None:
    """`result` of a cancelled job raises JobCancelled with the reason given."""
    job = await on.client.submit(GREET, "Ada")
    assert (await job.cancel("changed my mind")).state is State.cancelled
    with pytest.raises(JobCancelled) as caught:
        await job.result(timeout=10)
    assert caught.value.reason == "changed my mind"


async def test_a_wait_that_ends_leaves_the_job_alone(on: Stage) -> None:
    """WaitTimeout ends the waiting only: the job can still be waited for."""
    job = await on.client.submit(GREET, "Ada")
    with pytest.raises(WaitTimeout):
        await job.result(timeout=0)
    await on.hand.succeed(await on.hand.take(), {"text": "late"})
    assert await job.result(timeout=10) == Greeting("late")


async def test_a_result_is_found_by_id(on: Stage) -> None:
    """Another program needs no more than the id."""
    job = await on.client.submit(GREET, "Ada")
    await on.hand.succeed(await on.hand.take(), {"text": "x"})
    assert await on.client.result(job.id, timeout=10) == {"text": "x"}
    assert await on.client.job(job.id).result() == {"text": "x"}


# -- change


async def test_a_running_job_is_asked_to_stop(on: Stage) -> None:
    """Cancelling what runs is a request: it stays running, marked, until its worker yields."""
    job = await on.client.submit(GREET, "Ada")
    assignment = await on.hand.take()
    body = await job.cancel()
    assert body.state is State.running
    assert body.cancel_requested_at is not None
    await on.hand.yield_to_cancel(assignment)
    assert (await job.get()).state is State.cancelled


async def test_retry_makes_a_new_job_of_one_that_ended(on: Stage) -> None:
    """The new job has the old one's input, names it, and decodes as it did."""
    job = await on.client.submit(GREET, "Ada")
    with pytest.raises(JobNotRetryable):
        await job.retry()
    await on.hand.fail(await on.hand.take(), "no voice")
    again = await job.retry()
    body = await again.get()
    assert (body.retry_of, body.input, body.state) == (job.id, {"name": "Ada", "times": 1}, State.queued)
    await on.hand.succeed(await on.hand.take(), {"text": "x"})
    assert await again.result(timeout=10) == Greeting("x")


async def test_only_a_job_that_ended_is_deleted(on: Stage) -> None:
    """Deleting a live job is refused; `force` cancels it first."""
    job = await on.client.submit(GREET, "Ada")
    with pytest.raises(JobLive):
        await on.client.delete(job.id)
    await on.client.delete(job.id, force=True)
    with pytest.raises(JobNotFound):
        await job.get()


async def test_an_unknown_id_is_not_found_by_any_way(on: Stage) -> None:
    """Every way to a job says JobNotFound for an id that is not there."""
    client = on.client
    for way in (client.get, client.result, client.cancel, client.retry, client.delete):
        with pytest.raises(JobNotFound):
            await way(UNKNOWN)
    with pytest.raises(JobNotFound):
        await anext(client.events(UNKNOWN))


# -- many


async def test_find_lists_newest_first_through_all_pages(on: Stage) -> None:
    """`find` goes on from page to page; `limit` ends it."""
    ids = [(await on.client.submit("greet", name=str(n))).id for n in range(105)]
    assert [body.id async for body in on.client.find()] == ids[::-1]
    assert [body.id async for body in on.client.find(limit=3)] == ids[:-4:-1]


async def test_find_narrows_by_state_queue_task_and_tag(on: Stage) -> None:
    """Every filter narrows; states may be several."""
    tagged = await on.client.with_options(tags=["t"]).submit("greet", name="a")
    other = await on.client.with_options(queue="other").submit("greet", name="b")
    delayed = await on.client.with_options(delay=60).submit("greet", name="c")

    async def found(**wanted: object) -> set[str]:
        return {body.id async for body in on.client.find(**wanted)}  # type: ignore[arg-type]

    assert await found(tag="t") == {tagged.id}
    assert await found(queue="other") == {other.id}
    assert await found(state="scheduled") == {delayed.id}
    assert await found(state=["scheduled", State.queued]) == {tagged.id, other.id, delayed.id}
    assert await found(task="nothing") == set()


async def test_a_state_that_is_none_is_refused(on: Stage) -> None:
    """A misspelt state is told, not answered with an empty list."""
    with pytest.raises(InvalidRequest, match="sleeping"):
        await anext(on.client.find(state="sleeping"))


async def test_a_paused_queue_says_so_until_resumed(on: Stage) -> None:
    """`pause` and `resume` show in the queue's policy; `queues` counts what waits."""
    await on.client.submit("greet", name="Ada")
    assert (await on.client.pause("hall")).paused
    (hall,) = [queue for queue in await on.client.queues() if queue.name == "hall"]
    assert (hall.queued, hall.paused) == (1, True)
    assert not (await on.client.resume("hall")).paused


async def test_the_catalogue_tells_what_can_be_submitted(on: Stage) -> None:
    """`tasks` gives what workers announced, schemas and all."""
    (task,) = await on.client.tasks()
    assert (task.name, task.queue) == ("greet", "hall")
    assert task.input_schema["required"] == ["name"]

"""One suite for the client's face on every transport: jobs that wait for others, and waking them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from client_support import GREET, TRANSPORTS, Hand, Stage, stage

from ropeway.client import Client, SyncClient, call
from ropeway.client.reference import Output
from ropeway.domain.errors import IdempotencyKeyReused, InputInvalid, InvalidRequest, JobNotFound
from ropeway.domain.flow import AFTER_LIMIT
from ropeway.domain.lifecycle import State
from ropeway.domain.worker import TaskCard
from ropeway.engines.memory import MemoryEngine
from ropeway.engines.waits import Wait, Waits

YEAR_S = 366 * 86_400


@pytest.fixture(name="on", params=TRANSPORTS)
async def make_stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(request.param, tmp_path) as made:
        await made.engine.publish([TaskCard("free", queue="hall")])
        yield made


async def noted(on: Stage) -> list[Wait]:
    """Who was noted to wait, and for whom."""
    return [kept.what async for kept in Waits(on.engine).since(0) if isinstance(kept.what, Wait)]


# -- waiting for others


async def test_a_job_waits_for_those_it_is_told(on: Stage) -> None:
    """By handle or by id, one or many, each once; it is scheduled for no time, and noted for whoever wakes."""
    first, second = [await on.client.submit(GREET, name) for name in ("Ada", "Bob")]
    many = await on.client.with_options(after=[first, second.id, first]).submit(GREET, "Cid")
    body = await many.get()
    assert (body.state, body.run_at, body.parent) == (State.scheduled, None, None)
    assert (body.after, body.after_failure) == ((first.id, second.id), "fail")
    one = await (await on.client.with_options(after=second, after_failure="run").submit("greet", name="Dan")).get()
    assert (one.after, one.after_failure) == ((second.id,), "run")
    assert set(await noted(on)) == {
        Wait(many.id, "default", (first.id, second.id)),
        Wait(one.id, "default", (second.id,), needs_all=False),
    }


async def test_a_job_that_waits_for_nobody_says_so(on: Stage) -> None:
    """Nothing stands for what is not there; no jobs to wait for are none."""
    for client in (on.client, on.client.with_options(after=[]), on.client.with_options(after_failure="run")):
        body = await (await client.submit(GREET, "Ada")).get()
        assert (body.state, body.after, body.after_failure) == (State.queued, (), None)
    assert await noted(on) == []


async def test_one_that_comes_when_they_have_ended_begins_at_once(on: Stage) -> None:
    """It tells all the same whom it came after."""
    first = await on.client.submit(GREET, "Ada")
    await on.hand.succeed(await on.hand.take(), {"text": "x"})
    body = await (await on.client.with_options(after=first).submit(GREET, "Bob")).get()
    assert (body.state, body.after, body.queue_position) == (State.queued, (first.id,), 0)


async def test_an_output_stands_anywhere_in_an_input(on: Stage) -> None:
    """At the top, in a list, in an object: the job waits for whose it is, beside those that it is told."""
    first, second, third = [await on.client.submit(GREET, name) for name in "abc"]
    job = await on.client.with_options(after=third).submit("free", a=first.output, b=[1, {"of": second.output}])
    body = await job.get()
    assert body.input == {"a": {"$output": first.id}, "b": [1, {"of": {"$output": second.id}}]}
    assert (body.state, body.run_at) == (State.scheduled, None)
    assert sorted(body.after) == sorted([first.id, second.id, third.id])


async def test_many_wait_too(on: Stage) -> None:
    """`submit_many` carries outputs and `after`; one that cannot be is refused at its own place."""
    first = await on.client.submit(GREET, "Ada")
    calls = [call("greet", name=first.output), call("greet", name="Bob"), call("greet", name=Output("job_none"))]
    handles = []
    with pytest.raises(InvalidRequest, match="there is no job 'job_none' to wait for"):
        async for handle in on.client.submit_many(calls):
            handles.append(handle)
    assert [(await handle.get()).state for handle in handles] == [State.scheduled, State.queued]
    (other,) = [h async for h in on.client.with_options(after=first).submit_many([call(GREET, "Cid")])]
    assert (await other.get()).after == (first.id,)


async def test_what_cannot_be_waited_for_is_refused_by_name(on: Stage) -> None:
    """A job that is not there, another tenant's, too many, no id: nothing is submitted, nothing is noted."""
    async with Client(on.engine, tenant="other") as stranger:
        theirs = await stranger.submit(GREET, "Eve")
    mine = await on.client.submit(GREET, "Ada")
    cases: list[Any] = [
        ["job_none"],
        [theirs],
        [mine, theirs.id],
        [f"job_{n}" for n in range(AFTER_LIMIT + 1)],
        [""],
        ["j" * 256],
        ["a\nb"],
    ]
    for after in cases:
        with pytest.raises(InvalidRequest) as refused:
            await on.client.with_options(after=after).submit(GREET, "Bob")
        assert refused.value.param == "after", after
    for value in (Output("job_none"), theirs.output, [mine.output, {"a": theirs.output}]):
        with pytest.raises(InvalidRequest, match="there is no job") as refused:
            await on.client.submit("free", value=value)
        assert refused.value.param == "after"
    assert [job.id async for job in on.client.find()] == [mine.id]
    assert await noted(on) == []


async def test_there_may_be_as_many_as_the_limit(on: Stage) -> None:
    """Told twice, a job is one; with those in the input they are counted together."""
    handles = [h async for h in on.client.submit_many(call(GREET, str(n)) for n in range(AFTER_LIMIT))]
    full = on.client.with_options(after=[*handles, handles[0]])
    assert len((await (await full.submit("greet", name=handles[0].output)).get()).after) == AFTER_LIMIT
    last = await on.client.submit(GREET, "last")
    with pytest.raises(InvalidRequest, match=r"1,000 others at the most, not 1,001") as refused:
        await full.submit("greet", name=last.output)
    assert refused.value.param == "after"


@pytest.mark.parametrize("delay", [0.001, YEAR_S])
async def test_a_job_waits_for_others_or_for_a_time(on: Stage, delay: float) -> None:
    """Not for both: it begins when the others have ended."""
    first = await on.client.submit(GREET, "Ada")
    for after, name in ((first.id, "Bob"), ([], first.output)):
        with pytest.raises(InvalidRequest, match="no delay") as refused:
            await on.client.with_options(after=after, delay=delay).submit("greet", name=name)
        assert refused.value.param == "delay"


async def test_what_is_no_option_is_refused_before_anything_is_sent(on: Stage) -> None:
    """Neither a number for a job nor another word for what becomes of it."""
    for options in ({"after": 5}, {"after": [5]}, {"after": "x", "after_failure": "shrug"}):
        with pytest.raises(InvalidRequest):
            on.client.with_options(**options)


async def test_what_is_known_of_an_input_is_checked(on: Stage) -> None:
    """By the task's announced schema: the other members count, what an output stands for does not."""
    first = await on.client.submit(GREET, "Ada")
    with pytest.raises(InputInvalid) as refused:
        await on.client.submit("greet", name=first.output, times="x", more=1)
    assert {fault.pointer for fault in refused.value.faults} == {"/times", "/more"}
    with pytest.raises(InputInvalid) as refused:
        await on.client.submit("greet", name=[first.output])
    assert [fault.pointer for fault in refused.value.faults] == ["/name"]


async def test_what_is_not_known_yet_is_no_content_to_know_a_job_by(on: Stage) -> None:
    """A job that waits for others is never another's, however equal: it is what they come to that counts."""
    first = await on.client.submit(GREET, "Ada")
    client = on.client.with_options(cache=True)
    by_input = [await client.submit("greet", name=first.output) for _ in range(2)]
    by_option = [await client.with_options(after=first).submit(GREET, "Ada") for _ in range(2)]
    handles = [*by_input, *by_option]
    assert len({handle.id for handle in handles}) == 4
    assert not any(handle.cached for handle in handles)


async def test_an_idempotency_key_covers_what_is_waited_for(on: Stage) -> None:
    """The same jobs in the same order are the same submit, others are not."""
    first, second = [await on.client.submit(GREET, name) for name in "ab"]
    keyed = on.client.with_options(idempotency_key="k", after=[first])
    made = await keyed.submit(GREET, "Bob")
    again = await keyed.submit(GREET, "Bob")
    assert (again.id, again.replayed) == (made.id, True)
    with pytest.raises(IdempotencyKeyReused):
        await keyed.with_options(after=[second]).submit(GREET, "Bob")


async def test_a_retry_comes_after_the_same_jobs(on: Stage) -> None:
    """It has them in its options, and looks for itself when it begins: it is queued at once."""
    first = await on.client.submit(GREET, "Ada")
    waiting = await on.client.with_options(after=first).submit(GREET, "Bob")
    await waiting.cancel()
    again = await (await waiting.retry()).get()
    assert (again.state, again.after, again.retry_of) == (State.queued, (first.id,), waiting.id)


# -- waking


async def test_a_waiting_job_is_woken(on: Stage) -> None:
    """Whatever it waits for, a time or another job: it is queued, and nobody else is."""
    first = await on.client.submit(GREET, "Ada")
    later = await on.client.with_options(delay=3600).submit(GREET, "Bob")
    waiting = await on.client.with_options(after=first).submit(GREET, "Cid")
    assert (await later.get()).run_at is not None
    assert ((await later.wake()).state, (await later.get()).run_at) == (State.queued, None)
    assert (await on.client.wake(waiting.id)).state is State.queued
    assert (await on.client.wake(waiting.id)).version == (await waiting.get()).version


async def test_waking_changes_no_job_that_waits_for_nothing(on: Stage) -> None:
    """A queued one, a running one, one that has ended; and one that is not there is not found."""
    job = await on.client.submit(GREET, "Ada")
    queued = await job.get()
    assert (await job.wake()).version == queued.version
    held = await on.hand.take()
    assert (await job.wake()).state is State.running
    await on.hand.succeed(held, {"text": "x"})
    ended = await job.get()
    assert (await job.wake()) == ended
    with pytest.raises(JobNotFound):
        await on.client.wake(f"job_{0:032x}")
    async with Client(on.engine, tenant="other") as stranger:
        with pytest.raises(JobNotFound):
            await stranger.wake(job.id)


async def test_a_delay_of_a_year_is_a_time(on: Stage) -> None:
    """The longest there is, and no sign of a job that waits for others."""
    body = await (await on.client.with_options(delay=YEAR_S).submit(GREET, "Ada")).get()
    assert body.run_at is not None


def test_blocking_code_waits_and_wakes_too() -> None:
    """`SyncClient` has the same, with handles of its own."""
    engine = MemoryEngine()
    with SyncClient(engine) as client:
        client.tasks()
        client._thread.run(Hand(engine).announce())
        first = client.submit(GREET, "Ada")
        second = client.with_options(after=[first]).submit("greet", name=first.output)
        assert second.get().after == (first.id,)
        assert second.wake().state is State.queued
        assert client.wake(second.id).state is State.queued

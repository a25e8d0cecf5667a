"""Sending data up to a running job, on every transport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from client_support import GREET, TRANSPORTS, Hand, Stage, stage
from http_play import JOB, RUNNING, Play, ok

from ropeway.client import Client, JobHandle, SyncClient
from ropeway.domain.errors import (
    InputInvalid,
    InvalidRequest,
    JobEnded,
    JobNotFound,
    JobNotRunning,
    PayloadTooLarge,
    RopewayError,
    TooManyInputs,
)
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine
from ropeway.engines.inputs import MAX_INPUT_BYTES, Given, Inputs
from ropeway.engines.memory import MemoryEngine
from ropeway.testing.faults import FaultyEngine, scripted


@pytest.fixture(name="on", params=TRANSPORTS)
async def make_stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(request.param, tmp_path) as made:
        yield made


async def running(on: Stage) -> JobHandle[Any]:
    """A job whose code runs."""
    job = await on.client.submit("greet", name="Ada")
    await on.hand.take()
    return job


async def kept(engine: Engine, job_id: str) -> list[Given]:
    """What the task would be given."""
    return await Inputs(engine).read(DEFAULT_TENANT, job_id, 0)


@dataclass
class Turn:
    """What a caller may send as it is."""

    words: str


async def test_data_is_stored_for_the_running_task_in_order(on: Stage) -> None:
    """Any JSON, by the handle or by the job's id; the answer is the job."""
    job = await running(on)
    assert (await job.send({"yes": [None, "ä"]})).state is State.running
    assert (await on.client.send(job.id, Turn("go on"))).id == job.id
    assert [given.data for given in await kept(on.engine, job.id)] == ['{"yes":[null,"ä"]}', '{"words":"go on"}']


async def test_under_a_key_it_is_given_once(on: Stage) -> None:
    """The key comes along, so the task's own reader knows the repeat."""
    job = await running(on)
    for _ in range(2):
        await job.send("yes", key="approval-7")
    assert {(given.data, given.key) for given in await kept(on.engine, job.id)} == {('"yes"', "approval-7")}


async def test_a_job_that_has_not_begun_or_has_ended_takes_nothing(on: Stage) -> None:
    """Not yet, or never again: each has an error of its own."""
    job = await on.client.submit("greet", name="Ada")
    delayed = await on.client.with_options(delay=60).submit("greet", name="Bob")
    for waiting in (job, delayed):
        with pytest.raises(JobNotRunning, match="send it again when the job runs") as early:
            await waiting.send(1)
        assert early.value.retryable
    await on.hand.succeed(await on.hand.take(), 1)
    with pytest.raises(JobEnded, match="succeeded"):
        await job.send(1)
    with pytest.raises(JobNotFound):
        await on.client.send(f"job_{0:032x}", 1)


async def test_a_job_that_waits_between_attempts_is_sent_data_and_goes_on(on: Stage) -> None:
    """It may wait for just that: what it was sent is kept, and it is queued at once."""
    job = await on.client.submit("greet", name="Ada")
    await on.hand.give_back(await on.hand.take(), 3600)
    assert (await job.get()).state is State.scheduled
    assert (await job.send("yes")).state is State.queued
    assert [given.data for given in await kept(on.engine, job.id)] == ['"yes"']
    assert (await job.send("again")).state is State.queued


async def test_what_cannot_be_sent_is_refused(on: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large, no JSON, a key that fits no header, one input too many."""
    job = await running(on)
    cases: list[tuple[Any, str | None, type[RopewayError]]] = [
        ("x" * MAX_INPUT_BYTES, None, PayloadTooLarge),
        ({1, object()}, None, InputInvalid),
        (1, "", InvalidRequest),
        (1, "ä", InvalidRequest),
        (1, "k" * 256, InvalidRequest),
    ]
    for data, key, refusal in cases:
        with pytest.raises(refusal) as caught:
            await job.send(data, key=key)
        assert not isinstance(caught.value, InvalidRequest) or caught.value.param == "key"
    monkeypatch.setattr("ropeway.engines.inputs.MAX_INPUTS", 1)
    await job.send(1)
    with pytest.raises(TooManyInputs):
        await job.send(2)


def test_blocking_code_sends_too() -> None:
    """`SyncClient` has the same, by the handle and by the id."""
    engine = MemoryEngine()
    with SyncClient(engine) as client:
        hand = Hand(engine)
        run = client._thread.run
        client.tasks()
        run(hand.announce())
        job = client.submit(GREET, "Ada")
        run(hand.take())
        assert job.send(1).state is State.running
        assert client.send(job.id, 2, key="k").id == job.id
        assert [given.data for given in run(kept(engine, job.id))] == ["1", "2"]


async def test_a_lost_answer_is_repeated_under_the_same_key() -> None:
    """On an engine: it may be kept twice, and carries one key, by which the task is given it once."""
    engine = MemoryEngine()
    await engine.open()
    hand = Hand(engine)
    await hand.announce()
    async with Client(FaultyEngine(engine, scripted(put=["after"]))) as client:
        job = await client.submit("greet", name="Ada")
        await hand.take()
        await job.send("yes")
    given = await kept(engine, job.id)
    assert [one.data for one in given] == ['"yes"', '"yes"']
    assert given[0].key == given[1].key is not None
    await engine.shut()


async def test_an_answer_lost_on_the_way_from_a_gateway_is_repeated_under_the_same_key() -> None:
    """A key of the client's own, when the caller gave none."""
    play = Play(httpx.ReadError("reset"), ok({**JOB, **RUNNING}, 202))
    async with play as transport:
        assert (await transport.send("job_1", b'{"a":1}', None)).id == "job_1"
    first, second = play.asked
    assert (first.method, first.url.path) == ("POST", "/ai/v1/jobs/job_1/input")
    assert first.content == second.content == b'{"data":{"a":1}}'
    assert len(first.headers["idempotency-key"]) == 32
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]

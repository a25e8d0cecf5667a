"""Schedules as a program says them, on an engine and behind a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from client_support import GREET, TRANSPORTS, Stage, stage
from msgspec.structs import replace

from ropeway.client import Client, SyncClient, call
from ropeway.domain.errors import InputInvalid, InvalidRequest, RopewayError, TaskNotFound
from ropeway.domain.file import FilesNotKept
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.domain.schedule import ScheduleConflict, ScheduleNotFound
from ropeway.domain.worker import TaskCard
from ropeway.engines.memory import MemoryEngine
from ropeway.engines.schedules import Schedules


@pytest.fixture(name="on", params=TRANSPORTS)
async def make_stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(request.param, tmp_path) as made:
        yield made


async def test_by_name_and_by_task(on: Stage) -> None:
    """A name with its fields, a task object, or a call of it: each with the task's own checks."""
    schedules = on.client.schedules
    first = await schedules.set("a", "greet", cron="@daily", timezone="Asia/Tokyo", input={"name": "Ada"})
    assert (first.name, first.state, first.job.input) == ("a", "active", {"name": "Ada"})
    second = await schedules.set("b", call(GREET, "Bob", times=2), interval=60)
    assert (second.interval, second.job.task, second.job.input) == (60.0, "greet", {"name": "Bob", "times": 2})
    third = await schedules.set("c", GREET, interval=60, input={"name": "Cid"})
    assert third.job.input["name"] == "Cid"
    assert [one.name for one in await schedules.find()] == ["a", "b", "c"]
    assert (await schedules.get("a")).upcoming == first.upcoming
    assert len(first.upcoming) == 5


async def test_options_are_those_of_a_submit(on: Stage) -> None:
    """And times are datetimes, or text."""
    body = await on.client.schedules.set(
        "a",
        "greet",
        interval=3600,
        input={"name": "Ada"},
        starts_at=datetime(2030, 1, 1, 9, tzinfo=ZoneInfo("Europe/Berlin")),
        ends_at="2030-02-01T00:00",
        jitter=5,
        catch_up="skip",
        grace=10,
        overlap="skip",
        paused=True,
        options={"queue": "other", "priority": "high", "delay": 3, "retry": Retry(max_attempts=9), "tags": ["t"]},
    )
    assert (body.starts_at, body.ends_at) == ("2030-01-01T08:00:00.000Z", "2030-02-01T00:00:00.000Z")
    assert (body.jitter, body.catch_up, body.grace, body.overlap, body.state) == (5.0, "skip", 10.0, "skip", "paused")
    assert (body.job.queue, body.job.priority, body.job.delay) == ("other", "high", 3.0)
    assert (body.job.options["tags"], body.job.options["retry"]["max_attempts"]) == (["t"], 9)


async def test_a_life(on: Stage) -> None:
    """Paused, resumed, run now, removed."""
    schedules = on.client.schedules
    await schedules.set("a", "greet", interval=3600, input={"name": "Ada"})
    assert (await schedules.pause("a")).state == "paused"
    assert (await schedules.resume("a")).state == "active"
    job = await schedules.run("a")
    held = await on.hand.take()
    assert held.job_id == job.id
    await on.hand.succeed(held, {"text": "Hello"})
    assert await job.result(timeout=20) == {"text": "Hello"}
    assert (await job.get()).state is State.succeeded
    assert [one.id async for one in on.client.find(tag="schedule:a")] == [job.id]
    await schedules.remove("a")
    assert await schedules.find() == []


@pytest.mark.parametrize(
    ("task", "settings", "error"),
    [
        ("greet", {"interval": 60}, InputInvalid),
        ("nobody", {"interval": 60}, TaskNotFound),
        ("greet", {"input": {"name": "a"}}, InvalidRequest),
        ("greet", {"cron": "x", "input": {"name": "a"}}, InvalidRequest),
        ("greet", {"interval": "x", "input": {"name": "a"}}, InvalidRequest),
        ("greet", {"interval": 60, "catch_up": "x", "input": {"name": "a"}}, InvalidRequest),
        ("greet", {"interval": 60, "nonsense": 1, "input": {"name": "a"}}, InvalidRequest),
        ("greet", {"interval": 60, "input": {"name": "a"}, "options": {"priority": "x"}}, InvalidRequest),
        ("greet", {"interval": 60, "input": {"name": "a"}, "options": {"idempotency_key": "k"}}, InvalidRequest),
        ("greet", {"interval": 60, "input": {"name": "a"}, "options": {"run_at": "2030-01-01T00:00Z"}}, InvalidRequest),
    ],
    ids=str,
)
async def test_what_cannot_be_is_refused(on: Stage, task: str, settings: Any, error: type[RopewayError]) -> None:
    """By the same errors on every transport."""
    with pytest.raises(error):
        await on.client.schedules.set("a", task, **settings)
    assert await on.client.schedules.find() == []


async def test_one_that_is_not_there(on: Stage) -> None:
    """ScheduleNotFound, whatever is asked of it; a name that can be none is InvalidRequest."""
    schedules = on.client.schedules
    for ask in (schedules.get, schedules.pause, schedules.resume, schedules.run, schedules.remove):
        with pytest.raises(ScheduleNotFound):
            await ask("nobody")
        with pytest.raises(InvalidRequest):
            await ask("../x")


async def test_one_of_the_code(on: Stage) -> None:
    """ScheduleConflict."""
    await on.client.schedules.set("a", "greet", interval=60, input={"name": "a"})
    await Schedules(on.engine).change("default", "a", lambda known: replace(known, declared=True))
    with pytest.raises(ScheduleConflict, match="declared in an application's code"):
        await on.client.schedules.set("a", "greet", interval=61, input={"name": "a"})


async def test_tenants_are_apart() -> None:
    """On an engine, too."""
    engine = MemoryEngine()
    await engine.open()
    async with Client(engine, tenant="a") as one, Client(engine, tenant="a.b") as other:
        await engine.publish([GREET.card])
        await one.schedules.set("x", "greet", interval=60, input={"name": "a"})
        assert await other.schedules.find() == []
        with pytest.raises(ScheduleNotFound):
            await other.schedules.get("x")
    await engine.shut()


def test_without_an_event_loop(tmp_path: Path) -> None:
    """The same, blocking."""
    with SyncClient(f"sqlite:{tmp_path / 'jobs.db'}") as client:
        body = client.schedules.set("a", call(GREET, "Ada"), cron="@weekly")
        assert client.schedules.get("a") == body
        assert [one.name for one in client.schedules.find()] == ["a"]
        assert client.schedules.pause("a").state == "paused"
        assert client.schedules.resume("a").state == "active"
        with pytest.raises(TaskNotFound):
            client.schedules.run("a")
        client.schedules.remove("a")
        assert client.schedules.find() == []


async def test_a_file_in_the_input_is_looked_up_and_held(tmp_path: Path) -> None:
    """It must be there when the schedule is set; each job holds it while it lives. Without a store it is refused."""
    engine = MemoryEngine()
    await engine.open()
    await engine.publish([TaskCard("look")])
    async with Client(engine, blobs=f"file:{tmp_path / 'files'}") as client:
        file = await client.upload(b"pixels", filename="a.png", expires_in=3600)
        await client.schedules.set("a", "look", interval=60, input={"image": file})
        job = await client.schedules.run("a")
        assert [record.key.id for record in await engine.scan("filehold", "default")] == [f"{file.id}:{job.id}"]
        await client.files.delete(file)
        with pytest.raises(InputInvalid, match="a file that is not there"):
            await client.schedules.set("b", "look", interval=60, input={"image": file})
        with pytest.raises(InputInvalid, match="a file that is not there"):
            await client.schedules.run("a")
    async with Client(engine) as client:
        with pytest.raises(FilesNotKept):
            await client.schedules.set("c", "look", interval=60, input={"image": file})
    await engine.shut()


async def test_a_schedules_job_waits_for_no_other(on: Stage) -> None:
    """It runs at each of its times: neither `after` nor an output in its input."""
    first = await on.client.submit(GREET, "Ada")
    for options, name in (({"after": first}, "Bob"), ({"after_failure": "run"}, "Bob"), ({}, first.output)):
        with pytest.raises(InvalidRequest, match="waits for no other") as refused:
            settings: Any = {"interval": 60, "options": options, "input": {"name": name}}
            await on.client.schedules.set("a", "greet", **settings)
        assert refused.value.param == "job.after"

"""Schedules on the command line: set, listed, shown, paused, run and removed; on an engine and through a gateway."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cli_process import APPLICATION, Process
from cli_support import lines_of, publish, run, url_in

from ropeway.cli.exits import Exit
from ropeway.client import Client, SyncClient

DECLARED = """
app.schedule(greet, name="declared", interval=1, input={"name": "code"})
"""
PATIENCE_S = 60.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = url_in(tmp_path)
    publish(made)
    return made


def told(url: str, *arguments: str, code: int = Exit.ok) -> list[Any]:
    """What a command of `schedules` wrote as JSON lines."""
    result = run("schedules", *arguments, "--engine", url)
    assert result.exit_code == code, result.output
    return lines_of(result)


def text(url: str, *arguments: str) -> str:
    result = run("schedules", *arguments, "--text", "--engine", url)
    assert result.exit_code == Exit.ok, result.output
    return result.stdout


def set_one(url: str, name: str = "nightly", *more: str) -> Any:
    wanted = ("--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "-i", '{"name": "Ada"}')
    return told(url, "set", name, "greet", *wanted, *more)[0]


def test_one_is_set_and_shown(url: str) -> None:
    """As JSON on a pipe: everything that was said, and the next times."""
    options = ("--catch-up", "skip", "--grace", "5", "--overlap", "skip", "--jitter", "2", "--paused")
    more = ("--queue", "slow", "--priority", "low", "--timeout", "9", "--tag", "a", "--tag", "b")
    body = set_one(url, "nightly", *options, *more, "--starts-at", "2030-01-01T00:00")
    assert body == told(url, "show", "nightly")[0]
    assert (body["cron"], body["timezone"], body["starts_at"]) == (
        "30 2 * * *", "Europe/Berlin", "2029-12-31T23:00:00.000Z"
    )  # fmt: skip
    assert (body["catch_up"], body["grace"], body["overlap"], body["jitter"]) == ("skip", 5.0, "skip", 2.0)
    assert (body["state"], body["job"]["queue"], body["job"]["priority"]) == ("paused", "slow", "low")
    assert body["job"]["options"] == {"timeout": 9.0, "tags": ["a", "b"]}
    assert [one["name"] for one in told(url, "list")] == ["nightly"]


def test_a_person_sees_times_in_the_schedules_zone(url: str) -> None:
    """A table of what there is, and of one schedule its next times as clocks there show them."""
    assert "no schedules yet" in text(url, "list")
    set_one(url)
    told(url, "set", "often", "greet", "--every", "90", "-i", '{"name": "Bob"}')
    table = text(url, "list")
    for word in ("schedule", "state", "next", "nightly", "30 2 * * * Europe/Berlin", "often", "every 90 s", "in "):
        assert word in table
    shown = text(url, "show", "nightly")
    assert "02:30:00+0" in shown
    assert '"name": "Ada"' in shown
    assert "catch up: latest (grace 60 s), overlap: allow" in shown


def test_a_life(url: str) -> None:
    """Paused, resumed, run now, removed."""
    set_one(url)
    set_one(url, "other")
    assert [one["state"] for one in told(url, "pause", "nightly", "other")] == ["paused", "paused"]
    assert [one["state"] for one in told(url, "resume", "nightly")] == ["active"]
    (job,) = told(url, "run", "other")
    assert (job["task"], job["tags"], job["state"]) == ("greet", ["schedule:other"], "queued")
    assert text(url, "run", "other").startswith("job_")
    assert told(url, "remove", "nightly", "other") == [
        {"name": "nightly", "removed": True},
        {"name": "other", "removed": True},
    ]
    assert told(url, "list") == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("set", "x", "greet"), Exit.usage, "either `cron` or `interval`"),
        (("set", "x", "greet", "--cron", "x"), Exit.usage, "five fields are wanted"),
        (("set", "x", "greet", "--every", "60"), Exit.usage, "/name is required"),
        (("set", "x", "greet", "--every", "60", "-i", "{"), Exit.usage, "--input is not JSON"),
        (("set", "x", "nobody", "--every", "60"), Exit.not_found, "no worker has announced task 'nobody'"),
        (("set", "a b", "greet", "--every", "60"), Exit.usage, "no name of a schedule"),
        (("show", "x"), Exit.not_found, "no schedule x"),
        (("run", "x"), Exit.not_found, "no schedule x"),
        (("remove", "x"), Exit.not_found, "no schedule x"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_a_code(url: str, arguments: tuple[str, ...], code: int, says: str) -> None:
    """No traceback, and what to do."""
    result = run("schedules", *arguments, "--engine", url)
    assert (result.exit_code, says in result.stderr) == (code, True), result.output


def test_a_job_may_be_submitted_for_an_instant(url: str) -> None:
    """With a zone behind it."""
    result = run(
        "jobs", "submit", "greet", "-i", '{"name": "x"}', "--run-at", "2026-12-24T18:00[Europe/Berlin]", "-e", url
    )
    assert result.exit_code == Exit.ok, result.output
    assert lines_of(result)[0]["state"] in ("scheduled", "queued")
    refused = run("jobs", "submit", "greet", "-i", '{"name": "x"}', "--run-at", "18:00", "-e", url)
    assert (refused.exit_code, "run_at is an instant" in refused.stderr) == (Exit.usage, True)


async def test_through_a_gateway_and_for_real(tmp_path: Path) -> None:
    """`up` fires what its application declares, and what is set through its gateway."""
    (tmp_path / "served.py").write_text(APPLICATION + DECLARED)
    process = Process(tmp_path, "up", "served:app", "--port", "0")
    try:
        url = process.ready()["url"]
        for _ in range(2):
            wanted = ("set", "mine", "greet", "--every", "1", "-i", '{"name": "Ada"}')
            result = await asyncio.to_thread(run, "schedules", *wanted, "--url", url)
            assert result.exit_code == Exit.ok, result.output
        async with Client(url) as client:
            for name, output in (("mine", "Hello, Ada!"), ("declared", "Hello, code!")):
                assert await outputs(client, name, 2) == {output}
            assert [one.state for one in await client.schedules.find()] == ["active", "active"]
        refused = await asyncio.to_thread(run, "schedules", "remove", "declared", "--url", url)
        assert (refused.exit_code, "remove it there, or pause it" in refused.stderr) == (Exit.refused, True)
    finally:
        process.close()


async def outputs(client: Client, name: str, count: int) -> set[str]:
    """What so many jobs of a schedule came to, once there are as many."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = [job.id async for job in client.find(tag=f"schedule:{name}")]
            if len(found) >= count:
                return {await client.result(job_id) for job_id in found}
            await asyncio.sleep(0.05)


@pytest.mark.slow
def test_workers_that_are_killed_miss_no_time_and_double_none(tmp_path: Path) -> None:
    """Two workers on one file, killed in turn with `kill -9`, the leader among them: each second has its one job."""
    (tmp_path / "served.py").write_text(APPLICATION)
    engine = f"sqlite:{tmp_path / 'jobs.db'}"
    publish(engine, ["greet"])
    workers = [Process(tmp_path, "worker", "served:app", "--engine", engine) for _ in range(2)]
    try:
        for worker in workers:
            worker.says("is ready")
        told(engine, "set", "each", "greet", "--every", "1", "--catch-up", "all", "-i", '{"name": "Ada"}')
        with SyncClient(engine) as client:
            for worker in (*workers, *workers):
                fired = client.schedules.get("each").fired
                os.kill(worker.children[0], signal.SIGKILL)
                until_fired(client, fired + 2)
            client.schedules.pause("each")
            times = [job.metadata["scheduled_for"] for job in client.find(tag="schedule:each")]
        seconds = sorted(round(datetime.fromisoformat(text).timestamp()) for text in times)
        assert seconds == list(range(seconds[0], seconds[0] + len(seconds)))
        assert len(seconds) >= 8
    finally:
        for worker in workers:
            worker.close()


def until_fired(client: SyncClient, count: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while client.schedules.get("each").fired < count:
        assert time.monotonic() < deadline_s, "waited in vain until somebody fires"
        time.sleep(0.05)

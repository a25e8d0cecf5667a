"""The command line on a Redis or Valkey: processes apart, a server that is away, and URLs that lead nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from cli_process import APPLICATION, Process, started
from cli_support import run

from ropeway.cli import follow
from ropeway.cli.exits import Exit
from ropeway.client import Client, EventBody
from ropeway.domain.errors import EngineUnavailable
from ropeway.engines.redis import fleet
from servers import Server, free_port

SECRET = "hunter2"


@pytest.fixture(name="folder")
def make_folder(tmp_path: Path) -> Path:
    (tmp_path / "served.py").write_text(APPLICATION)
    return tmp_path


@pytest.fixture(name="server")
def make_server() -> Iterator[Server]:
    """A Valkey of the test's own, to be killed."""
    server = Server().start()
    yield server
    server.delete()


# -- processes apart


async def test_gateway_and_worker_go_on_after_the_server_was_away(folder: Path, server: Server) -> None:
    """Killed and started again: it is told, submits are refused meanwhile, and what ran goes on in its attempt."""
    worker = Process(folder, "worker", "served:app", "--engine", server.url)
    gateway = Process(folder, "api", "served:app", "--engine", server.url, "--port", "0")
    try:
        told = gateway.ready()
        assert (told["engine"], told["durability"], told["tasks"]) == (
            server.url,
            "disk",
            ["count", "greet", "second_time"],
        )
        async with Client(told["url"]) as client, httpx.AsyncClient(base_url=told["url"], timeout=60) as http:
            job = await client.submit("count", to=30, pause=0.1)
            await started(job)
            server.kill()
            refused = await http.post("/v1/jobs", json={"task": "greet", "input": {"name": "Ada"}})
            assert (refused.status_code, refused.json()["code"]) == (503, "engine_unavailable")
            assert (await http.get("/readyz")).status_code == 503
            await asyncio.to_thread(worker.says, f"{server.url} is not to be reached")
            await asyncio.to_thread(server.start)
            assert await (await client.submit("greet", name="Ada")).result(timeout=60) == "Hello, Ada!"
            assert await job.result(timeout=60) == list(range(30))
            assert (await job.get()).attempt == 1
        (gateway_code, _), (worker_code, said) = gateway.stop(), worker.stop()
        assert (gateway_code, worker_code) == (Exit.ok, Exit.ok)
        assert "Traceback" not in said
    finally:
        gateway.close()
        worker.close()


async def test_up_serves_on_a_valkey(folder: Path, server: Server) -> None:
    """The supervisor, a gateway and two workers, on an engine that is a server of its own."""
    process = Process(folder, "up", "served:app", "--engine", server.url, "--port", "0", "--workers", "2")
    try:
        async with Client(process.ready()["url"]) as client:
            assert await (await client.submit("greet", name="Ada")).result(timeout=60) == "Hello, Ada!"
        assert process.stop()[0] == Exit.ok
    finally:
        process.close()


class AwayClient:
    """A client of an engine that is away for the first few calls, each after one more event."""

    def __init__(self, failures: int, events: list[EventBody]) -> None:
        self.failures = failures
        self.asked: list[str | None] = []
        self._events = events

    async def events(self, _job_id: str, after: str | None) -> AsyncIterator[EventBody]:
        self.asked.append(after)
        ids = [event.id for event in self._events]
        left = self._events[ids.index(after) + 1 if after else 0 :]
        if len(self.asked) <= self.failures:
            yield left[0]
            raise EngineUnavailable("redis://127.0.0.1 is not to be reached")
        for event in left:
            yield event


async def test_a_tail_goes_on_where_it_was_when_the_server_is_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is shown twice, nothing is missing; on stderr it says what it waits for."""
    monkeypatch.setattr(follow, "RETRY_S", 0.0)
    deltas = [_event(n, "output.delta", {"delta": f"{n} "}) for n in range(5)]
    client = AwayClient(3, [*deltas, _event(5, "job.succeeded", {})])
    assert await follow.follow_job(cast(Client, client), "job_1", None, lines=False) == Exit.ok
    shown = capsys.readouterr()
    assert shown.out == "0 1 2 3 4 \n"
    assert "is not to be reached; waiting for it" in shown.err
    assert client.asked == [None, "7-0", "7-1", "7-2"]


async def test_a_tail_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An engine that does not come back is an error in the end, and the place to go on from is told."""
    monkeypatch.setattr(follow, "RETRY_S", 0.0)
    monkeypatch.setattr(follow, "TRIES", 1)
    client = AwayClient(9, [_event(n, "progress", {}) for n in range(5)])
    with pytest.raises(EngineUnavailable):
        await follow.follow_job(cast(Client, client), "job_1", None, lines=True)
    assert "ropeway jobs tail job_1 --after 7-0" in capsys.readouterr().err


def _event(n: int, type_: str, data: dict[str, Any]) -> EventBody:
    return EventBody(f"7-{n}", n, type_, "job_1", 1, "2026-11-22T00:00:00Z", data)


# -- what leads nowhere


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobs", "list"],
        ["queues", "list"],
        ["prune"],
        ["worker", "served:app"],
        ["api", "--port", "0"],
        ["up", "served:app", "--port", "0"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_server_out_of_reach_is_one_line_and_a_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Exit code 3; the address is told, the password is not; no traceback."""
    monkeypatch.setattr(fleet, "OPEN_S", 0.1)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    port = free_port()
    result = run(*arguments, "--engine", f"redis://:{SECRET}@127.0.0.1:{port}")
    assert result.exit_code == Exit.unavailable
    assert f"127.0.0.1:{port}" in result.stderr
    errors = [line for line in result.stderr.splitlines() if "files are not kept" not in line]  # told before it begins
    assert len(errors) == 1
    assert errors[0].startswith("ropeway: ")
    assert SECRET not in result.stderr


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"redis://:{SECRET}@127.0.0.1/first", "URL"),
        (f"redis://:{SECRET}@127.0.0.1:many", "port"),
        (f"redis://:{SECRET}@127.0.0.1?prefx=a", "prefx"),
        (f"redis://:{SECRET}@127.0.0.1?durability=paper", "durability"),
        (f"redis+sentinel://:{SECRET}@127.0.0.1", "service"),
        (f"reddis://:{SECRET}@127.0.0.1", "names no engine"),
    ],
)
def test_a_url_that_cannot_be_one_is_told_without_its_password(url: str, told: str) -> None:
    """Exit code 2, before anything is connected."""
    result = run("jobs", "list", "--engine", url)
    assert result.exit_code == Exit.usage
    assert told in result.stderr
    assert SECRET not in result.stderr


def test_a_gateway_is_named_by_an_http_url() -> None:
    """An engine's URL after --url would reach past the gateway: it is refused, with the flag that takes it."""
    result = run("jobs", "list", "--url", "redis://127.0.0.1")
    assert result.exit_code == Exit.usage
    assert "--engine" in result.stderr

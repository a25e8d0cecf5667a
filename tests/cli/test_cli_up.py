"""`ropeway up`, `api` and `worker` as real processes: what they serve, what they survive, how they end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import APPLICATION, Process, started
from cli_support import run

from ropeway.cli.exits import Exit
from ropeway.client import Client


@pytest.fixture(name="folder")
def make_folder(tmp_path: Path) -> Path:
    (tmp_path / "served.py").write_text(APPLICATION)
    return tmp_path


@pytest.fixture(name="up")
def make_up(folder: Path) -> Iterator[Process]:
    """`ropeway up` on a file, with two workers."""
    process = Process(folder, "up", "served:app", "--port", "0", "--workers", "2")
    try:
        yield process
    finally:
        process.close()


# -- it serves


async def test_up_serves_an_application_in_one_command(up: Process) -> None:
    """One line says where; jobs submitted there are run; SIGTERM ends all of it with code 0."""
    told = up.ready()
    assert (told["engine"], told["durability"], told["ready"]) == ("sqlite:ropeway.db", "disk", True)
    assert told["tasks"] == ["count", "greet", "second_time"]
    async with Client(told["url"]) as client:
        assert await (await client.submit("greet", name="Ada")).result(timeout=60) == "Hello, Ada!"
    code, said = up.stop()
    assert code == Exit.ok
    assert "Traceback" not in said


async def test_up_in_memory_is_one_process(folder: Path) -> None:
    """The same face without a file; inputs are checked by the task's own types."""
    process = Process(folder, "up", "served:app", "--port", "0", "--engine", "memory:")
    try:
        told = process.ready()
        assert told["durability"] == "memory"
        async with Client(told["url"]) as client:
            assert await (await client.submit("greet", name="Ada")).result(timeout=60) == "Hello, Ada!"
        assert process.children == []
        assert process.stop()[0] == Exit.ok
        assert not (folder / "ropeway.db").exists()
    finally:
        process.close()


async def test_gateway_and_worker_serve_apart(folder: Path) -> None:
    """`api` and `worker` on one file are what `up` is; the gateway knows the tasks as soon as a worker is there."""
    worker = Process(folder, "worker", "served:app", "--name", "alone")
    gateway = Process(folder, "api", "served:app", "--port", "0")
    try:
        async with Client(gateway.ready()["url"]) as client:
            job = await client.submit("greet", name="Ada")
            assert await job.result(timeout=60) == "Hello, Ada!"
            assert (await job.get()).worker == "alone-1"
        assert (gateway.stop()[0], worker.stop()[0]) == (Exit.ok, Exit.ok)
    finally:
        gateway.close()
        worker.close()


# -- what it survives


@pytest.mark.slow
async def test_the_jobs_of_a_killed_worker_run_elsewhere(up: Process) -> None:
    """kill -9 of a worker: the supervisor has its jobs rescued at once, and another worker runs them."""
    async with Client(up.ready()["url"]) as client:
        job = await client.submit("second_time")
        await started(job)
        name = (await job.get()).worker or ""
        os.kill(int(name.rpartition("-")[2]), signal.SIGKILL)  # a worker is named after its host and process
        assert await job.result(timeout=60) == 2
        events = [event.type async for event in job.events()]
    assert events.count("job.retrying") == 1
    assert events[-1] == "job.succeeded"


@pytest.mark.slow
async def test_a_reader_outlives_the_gateway_that_it_read_from(up: Process) -> None:
    """kill -9 of the gateway under an open stream: it is started again where it was, and the reader misses nothing."""
    items = []
    async with Client(up.ready()["url"]) as client:
        job = await client.submit("count", to=40, pause=0.05)
        async for event in job.events():
            if event.type == "output.delta":
                items.append(event.data["delta"])
            if items == [0, 1, 2] and event.type == "output.delta":
                os.kill(up.child("api"), signal.SIGKILL)
        assert items == list(range(40))


@pytest.mark.slow
async def test_a_stop_lets_running_jobs_finish(up: Process, folder: Path) -> None:
    """SIGTERM drains: what runs within the grace ends as it would have."""
    async with Client(up.ready()["url"]) as client:
        job = await client.submit("count", to=10, pause=0.1)
        await started(job)
    code, said = up.stop()
    assert code == Exit.ok, said
    async with Client(f"sqlite:{folder / 'ropeway.db'}") as client:
        assert await client.result(job.id, timeout=0) == list(range(10))


@pytest.mark.slow
async def test_a_second_signal_gives_jobs_back_at_once(up: Process, folder: Path) -> None:
    """Told twice, it waits for nobody: the job is queued again, and no attempt of it is spent."""
    async with Client(up.ready()["url"]) as client:
        job = await client.submit("second_time")
        await started(job)
    up.signal(signal.SIGINT)
    up.says("drains")
    assert up.stop()[0] == Exit.ok
    async with Client(f"sqlite:{folder / 'ropeway.db'}") as client:
        body = await client.get(job.id)
    assert (body.state, body.attempt) == ("queued", 0)


# -- what cannot start


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("import nosuchmodule", Exit.usage, "nosuchmodule"),
        ("x = 1 / 0", Exit.usage, "broken.py:1"),
        ("def f(:", Exit.usage, "broken.py:1"),
        ("other = 1", Exit.usage, "has no 'app'"),
        (
            "from ropeway import App\napp = App()\n"
            "@app.resource\nasync def llm() -> int:\n    raise OSError('no model')\n"
            "@app.task\nasync def t(*, llm: int) -> int:\n    return llm",
            Exit.no_start,
            "no model",
        ),
    ],
    ids=["missing import", "error", "syntax", "no app", "resource"],
)
def test_an_application_that_cannot_start_ends_all_with_its_reason(
    tmp_path: Path, text: str, code: Exit, told: str
) -> None:
    """The worker says why in a line, and nothing is tried again and again."""
    (tmp_path / "broken.py").write_text(text)
    process = Process(tmp_path, "worker", "broken:app")
    ended, said = process.ended()
    assert ended == code
    assert told in said
    assert "Traceback" not in said


def test_a_port_in_use_is_told_before_anything_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line and a code, by every command that listens."""
    monkeypatch.chdir(folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for command in (["up", "served:app"], ["up", "served:app", "--engine", "memory:"], ["api"]):
            result = run(*command, "--port", port)
            assert result.exit_code == Exit.no_start
            assert f"port {port} of 127.0.0.1 is in use" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["up", "served:app", "--host", "0.0.0.0"], Exit.usage, "--insecure"),
        (["api", "--host", "192.0.2.1"], Exit.usage, "--insecure"),
        (["up", "nowhere:app"], Exit.usage, "nowhere.py"),
        (["up", "served.py"], Exit.usage, "served:app"),
        (["up", "served app"], Exit.usage, "MODULE:APP"),
        (["up", "served:app", "--engine", "redis://127.0.0.1/first"], Exit.usage, "URL"),
        (["worker", "served:app", "--engine", "redis://127.0.0.1?prefx=a"], Exit.usage, "prefx"),
        (["up", "served:app", "--engine", "memory:", "--workers", "2"], Exit.usage, "one process"),
        (["worker", "served:app", "--engine", "memory:"], Exit.usage, "ropeway up"),
        (["api", "--engine", "memory:"], Exit.usage, "ropeway up"),
        (["up", "served:app", "--engine", "sqlite:nowhere/jobs.db"], Exit.unavailable, "nowhere/jobs.db"),
        (["up", "served:app", "--engine", "sqlite:served.py"], Exit.unavailable, "not a database"),
        (["up", "served:app", "--port", "many"], Exit.usage, "--port"),
    ],
)
def test_what_cannot_be_served_is_told_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: Exit, told: str
) -> None:
    """A mistake on the command line is one line with its remedy, before any process is started."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    result = run(*arguments, *(["--port", "0"] if arguments[0] != "worker" and "--port" not in arguments else []))
    assert result.exit_code == code
    assert told in result.stderr
    assert "Traceback" not in result.stderr

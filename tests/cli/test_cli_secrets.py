"""Commands on a server that asks for a password: what `doctor` tells of it, and that no command tells the password."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cli_support import lines_of, publish, run
from typer.testing import Result

from ropeway.cli.exits import Exit
from ropeway.engines.redis import fleet
from ropeway.engines.redis.rights import acl_rules
from servers import Server, until

CANARY = "c4naryS3cret"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("--appendonly", "yes", "--appendfsync", "everysec").start()
    assert server.ask(f"ACL SETUSER queue on >{CANARY} {acl_rules()}") == "+OK"
    publish(f"redis://queue:{CANARY}@127.0.0.1:{server.port}")
    yield server
    server.delete()


@pytest.fixture
def url(server: Server) -> str:
    return f"redis://queue:{CANARY}@127.0.0.1:{server.port}"


def all_of(result: Result, caplog: pytest.LogCaptureFixture) -> str:
    """Everything that a command wrote, logged or raised."""
    raised = "".join(traceback.format_exception(result.exception)) if result.exception else ""
    return result.stdout + result.stderr + raised + caplog.text


COMMANDS = [
    ("doctor",),
    ("doctor", "--text"),
    ("fsck",),
    ("fsck", "--repair", "--text"),
    ("queues", "list", "--text"),
    ("jobs", "list"),
    ("jobs", "submit", "greet", "--input", '{"name": "Ada"}'),
    ("jobs", "show", "job_nobody"),
    ("prune", "--text"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_tells_the_password(command: tuple[str, ...], url: str, caplog: pytest.LogCaptureFixture) -> None:
    """On a server that answers."""
    with caplog.at_level(logging.DEBUG):
        result = run(*command, "--engine", url)
    assert result.exit_code in (Exit.ok, Exit.not_found), result.stderr
    assert CANARY not in all_of(result, caplog)


@pytest.mark.parametrize(
    "wrong",
    [
        "redi://queue:{}@127.0.0.1",
        "redis://queue:{}@127.0.0.1:x",
        "redis://queue:{}x@127.0.0.1:{port}",
        "redis://{}@127.0.0.1:{port}",
        "redis://queue:{}@127.0.0.1:1?timeout_s=0.2",
        "redis://queue:{}@127.0.0.1:{port}?nothing=1",
        "redis://queue:{}@127.0.0.1:{port}?durability=disk",
        "rediss://queue:{}@127.0.0.1:{port}?timeout_s=0.2",
        "redis+cluster://queue:{}@127.0.0.1:{port}",
        "redis+sentinel://127.0.0.1:1/main?sentinel_password={}&timeout_s=0.2",
    ],
)
@pytest.mark.parametrize("command", ["doctor", "fsck", "prune"])
def test_no_command_tells_the_password_when_it_fails(
    command: str, wrong: str, server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL that is wrong in any way, and a server that is not there or lets nobody in."""
    monkeypatch.setattr(fleet, "OPEN_S", 0.3)
    url = wrong.replace("{}", CANARY).replace("{port}", str(server.port))
    with caplog.at_level(logging.DEBUG):
        result = run(command, "--engine", url)
    assert result.exit_code in (Exit.job_failed, Exit.usage, Exit.unavailable)
    assert CANARY not in all_of(result, caplog)


@pytest.mark.parametrize("text", ["--text", "--json"])
def test_a_password_from_the_settings_is_not_told(text: str, url: str, tmp_path: Path) -> None:
    """The settings file is a place for it, and is not shown."""
    file = tmp_path / "ropeway.toml"
    file.write_text(f'engine = "{url}"\n')
    assert CANARY not in run("doctor", text, "--config", str(file)).stdout


def test_the_doctor_tells_what_the_server_is_worth(url: str, server: Server) -> None:
    """Its name and version, its class, and what a 202 means by it."""
    result = run("doctor", "--engine", url)
    found = {line["name"]: line for line in lines_of(result)}
    assert result.exit_code == Exit.ok
    assert found["engine"]["value"].startswith(f"redis://queue:***@127.0.0.1:{server.port}: valkey 9")
    assert "durability window" in found["engine"]["value"]
    assert "last second" in found["a 202 means"]["value"]


def test_the_doctor_tells_warnings_and_refusals(server: Server, url: str) -> None:
    """A setting that may cost jobs is a remark, one that will is bad, with the remedy, and the exit code says so."""
    server.ask("CONFIG SET appendfsync no")
    warned = run("doctor", "--engine", url)
    told = {(line["level"], line["value"]) for line in lines_of(warned)}
    assert ("warn", "appendfsync is no: a power cut may take half a minute") in told
    assert warned.exit_code == Exit.ok
    server.ask("CONFIG SET maxmemory-policy allkeys-lfu")
    refused = run("doctor", "--engine", url)
    server.ask("CONFIG SET maxmemory-policy noeviction")
    server.ask("CONFIG SET appendfsync everysec")
    (engine,) = [line for line in lines_of(refused) if line["name"] == "engine"]
    assert refused.exit_code == Exit.job_failed
    assert (engine["level"], engine["value"]) == ("fail", url.replace(CANARY, "***"))
    assert "set `maxmemory-policy noeviction`" in engine["advice"]


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="Linux only")
@pytest.mark.parametrize(("command", "children"), [("up", 2), ("api", 0), ("worker", 1)])
def test_no_process_tells_the_password(command: str, children: int, url: str, tmp_path: Path) -> None:
    """What serves says nothing of it, in its output, its log or the command line of a child that anybody may list."""
    (tmp_path / "chatbot.py").write_text(
        "from ropeway import App\n\napp = App()\n\n\n@app.task\ndef f() -> None: ...\n"
    )
    port = () if command == "worker" else ("--port", "0")
    log = tmp_path / "log"
    with (
        log.open("wb") as told,
        subprocess.Popen(
            [sys.executable, "-m", "ropeway", command, "chatbot:app", *port, "--log-level", "debug"],
            env={**os.environ, "ROPEWAY_ENGINE": url},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=told,
        ) as started,
    ):
        try:
            until(lambda: len(children_of(started.pid)) >= children, "its processes run")
            until(lambda: "class window" in log.read_text(), "an engine was opened")
            seen = [Path(f"/proc/{pid}/cmdline").read_text() for pid in (started.pid, *children_of(started.pid))]
        finally:
            started.send_signal(signal.SIGTERM)
            output, _ = started.communicate(timeout=30)
    assert CANARY not in " ".join(seen) + output.decode() + log.read_text()


def children_of(pid: int) -> list[int]:
    """The processes that this one started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            child, _, rest = status.read_text().partition(" (")
            if int(rest.rpartition(") ")[2].split()[1]) == pid:
                found.append(int(child))
    return found

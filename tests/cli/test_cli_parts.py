"""The smaller parts of the command line: help, checks of the machine, the bench, addresses, the banner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_support import lines_of, publish, run, url_in

from ropeway.cli import checks
from ropeway.cli.banner import example_input, show_ready
from ropeway.cli.exits import Exit, exit_of, message_of
from ropeway.cli.main import app as commands
from ropeway.cli.network import is_loopback, probe_port
from ropeway.cli.output import ago
from ropeway.domain.errors import Fault, InputInvalid, InvalidRequest, QueueFull
from ropeway.domain.worker import TaskCard
from ropeway.engines.base import EngineInfo
from servers import shared_server

COMMANDS = [
    [],
    ["up"],
    ["api"],
    ["worker"],
    ["jobs"],
    ["jobs", "submit"],
    ["jobs", "list"],
    ["jobs", "show"],
    ["jobs", "tail"],
    ["jobs", "send"],
    ["jobs", "cancel"],
    ["jobs", "retry"],
    ["jobs", "delete"],
    ["queues"],
    ["queues", "list"],
    ["queues", "pause"],
    ["queues", "resume"],
    ["bench"],
    ["doctor"],
    ["prune"],
    ["fsck"],
    ["version"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_says_what_it_does(command: list[str]) -> None:
    """`--help` works everywhere."""
    result = run(*command, "--help")
    assert result.exit_code == Exit.ok
    assert "Usage" in result.stdout


def test_who_reaches_jobs_does_it_in_one_way() -> None:
    """What may talk to a gateway may talk to an engine, show a key and read a settings file, by the same flags."""
    found = 0
    for group in typer.main.get_command(commands).commands.values():  # type: ignore[attr-defined]  # it is a group
        for command in getattr(group, "commands", {}).values():
            flags = [flag for param in command.params for flag in param.opts if flag.startswith("--")]
            if "--url" in flags:
                found += 1
                assert flags[-4:] == ["--engine", "--url", "--api-key", "--config"], command.name
    assert found > 20


def test_help_teaches_by_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands to copy keep their own lines, and the exit codes are told."""
    monkeypatch.setenv("COLUMNS", "100")
    lines = [line.strip() for line in run("--help").stdout.splitlines()]
    assert any(line.startswith("ropeway up chatbot:app") for line in lines)
    assert any(line.startswith("ropeway jobs list --state failed") for line in lines)
    assert any("Exit codes" in line for line in lines)


def test_versions_are_told() -> None:
    """Ropeway's own, and those of what matters."""
    (versions,) = lines_of(run("version"))
    assert {"ropeway", "apsw", "uvicorn", "python"} <= set(versions)
    assert "ropeway" in run("version", "--text").stdout


# -- errors


def test_a_message_names_every_fault_and_when_to_come_back() -> None:
    """What a person needs to mend it."""
    faults = (Fault("/a", "is required"), Fault("/b", 'is not of type "integer"'))
    assert message_of(InputInvalid("it does not fit", faults)).splitlines()[1:] == [
        "  /a is required",
        '  /b is not of type "integer"',
    ]
    full = QueueFull("gpu", 10)
    full.retry_after_s = 7.0
    assert message_of(full).endswith("try again in 7 s")
    assert (exit_of(full), exit_of(InvalidRequest("x"))) == (Exit.refused, Exit.usage)


@pytest.mark.parametrize(("seconds", "told"), [(-1, "0s"), (59.9, "59s"), (60, "1m"), (7200, "2h"), (200_000, "2d")])
def test_an_age_is_told_as_people_do(seconds: float, told: str) -> None:
    """One unit, rounded down."""
    assert ago(seconds) == told


# -- addresses


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", "")),
    ],
)
def test_only_this_machine_reaches_a_loopback_address(host: str, expected: bool) -> None:
    """What is not known to be one, is none."""
    assert is_loopback(host) is expected


def test_a_free_port_is_found() -> None:
    """Port 0 becomes a number that can be listened on."""
    port = probe_port("127.0.0.1", 0)
    assert probe_port("127.0.0.1", port) == port > 0


# -- the banner


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}, {"a": "hello"}),
        ({"$ref": "#/$defs/M", "$defs": {"M": {"type": "object", "properties": {}, "required": []}}}, {}),
        (
            {
                "type": "object",
                "properties": {"m": {"$ref": "#/$defs/M"}},
                "required": ["m"],
                "$defs": {"M": {"type": "integer"}},
            },
            {"m": 1},
        ),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"enum": ["x", "y"]}, "x"),
        ({"type": "array"}, []),
        ({}, {}),
    ],
)
def test_an_example_has_the_required_members(schema: dict[str, Any], expected: Any) -> None:
    """Enough for a first curl."""
    assert example_input(schema) == expected


def test_a_person_is_shown_what_to_try(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """URLs, what a 202 means, and a command that streams where the task does."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    cards = [TaskCard("chat", streams=True), TaskCard("embed")]
    show_ready("http://127.0.0.1:8000", EngineInfo("sqlite", "sqlite:ropeway.db", "disk", "3"), cards)
    shown = capsys.readouterr().out
    for wanted in ("http://127.0.0.1:8000/docs", "it is on the disk", "chat, embed", "text/event-stream"):
        assert wanted in shown
    assert """-d '{"task":"chat","input":{}}'""" in shown


# -- the doctor


def test_the_doctor_looks_at_the_machine_and_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is there is opened and told of; one that is not is no fault."""
    monkeypatch.chdir(tmp_path)
    missing = run("doctor", "--engine", url_in(tmp_path))
    publish(url_in(tmp_path))
    there = run("doctor", "--engine", url_in(tmp_path))
    assert (missing.exit_code, there.exit_code) == (Exit.ok, Exit.ok)
    names = {finding["name"] for finding in lines_of(there)}
    assert {"python", "sqlite", "open files", "threads", "free space", "sync to disk", "engine"} <= names
    assert "not made yet" in missing.stdout
    assert "durability disk" in there.stdout
    assert "sync to disk" in run("doctor", "--text", "--engine", url_in(tmp_path)).stdout


def test_the_doctor_says_what_the_machine_bears() -> None:
    """The sizing is for jobs of the length asked about: twice as long, half as many a second."""
    found = {line["name"]: line for line in map(json.loads, run("doctor", "--seconds", "2").stdout.splitlines())}
    for name in ("blocking jobs of 2 s", "async jobs of 2 s"):
        assert "at once" in found[name]["value"]
        assert "--workers" in found[name]["advice"]


def test_the_doctor_fails_when_something_is_bad(tmp_path: Path) -> None:
    """A folder that is not there, or a file that is no store: exit code 1, and what is wrong."""
    result = run("doctor", "--engine", f"sqlite:{tmp_path / 'nowhere' / 'jobs.db'}")
    assert result.exit_code == Exit.job_failed
    assert "must exist" in result.stdout


def test_a_network_file_system_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite loses data on one, so it is bad and not a remark."""
    monkeypatch.setattr(checks, "file_system_of", lambda folder: "nfs4")
    found = {finding.name: finding.level for finding in checks.folder_findings(tmp_path)}
    assert found["file system"] == "fail"


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="Linux only")
def test_a_file_system_is_known_by_its_mount() -> None:
    """The longest mount point that holds the folder decides."""
    assert checks.file_system_of(Path("/proc/self")) == "proc"
    assert checks.file_system_of(Path(os.sep)) is not None


# -- the bench


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
def test_the_bench_measures_and_leaves_nothing(engine: str, tmp_path: Path) -> None:
    """Four figures, each of jobs that really ran; the file is gone after."""
    result = run("bench", "--engine", engine, "--dir", str(tmp_path), "--jobs", "200")
    assert result.exit_code == Exit.ok, result.stderr
    figures = {figure["name"]: figure for figure in lines_of(result)}
    assert list(figures) == ["submit, one by one", "submit, in bulk", "run, one worker", "submit -> result"]
    assert figures["run, one worker"]["jobs"] == 210
    assert figures["submit -> result"]["p99_ms"] >= figures["submit -> result"]["p50_ms"] > 0
    assert list(tmp_path.iterdir()) == []


def test_the_bench_is_shown_as_a_table(tmp_path: Path) -> None:
    """For people."""
    shown = run("bench", "--engine", "memory", "--jobs", "100", "--text").stdout
    assert "submit, in bulk" in shown
    assert "jobs/s" in shown


def test_the_bench_leaves_nothing_on_a_server() -> None:
    """It has keys of its own, under the prefix that its user may be bound to; what was there stays."""
    server = shared_server()
    kept = server.ask("DBSIZE")
    result = run("bench", "--engine", f"{server.url}?prefix=mine", "--jobs", "200", "--text")
    assert result.exit_code == Exit.ok, result.stderr
    assert "class, client and worker in one process" in result.stdout
    assert server.ask("DBSIZE") == kept


@pytest.mark.parametrize("engine", ["sqlite:ropeway.db", "redis://127.0.0.1:1?color=red", "mysql://there"])
def test_the_bench_measures_its_own_stores_only(engine: str) -> None:
    """Nobody's queue is filled by mistake."""
    assert run("bench", "--engine", engine).exit_code == Exit.usage


def test_json_lines_are_json() -> None:
    """Each line by itself."""
    for line in run("doctor").stdout.splitlines():
        json.loads(line)


def test_a_command_imports_nothing_that_it_does_not_use() -> None:
    """The parts of a gateway and of an HTTP client take longer to import than all else."""
    heavy = ("httpx", "starlette", "ropeway.serving.app", "ropeway.client.http")
    program = f"import sys, ropeway.cli.main; print([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"

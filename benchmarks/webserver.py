"""The HTTP server under measurement: uvicorn with one process, the same for every application."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from benchmarks.launch import DriverFailed
from benchmarks.measure import resident_kib
from benchmarks.run import Run, Server
from benchmarks.store import free_port

__all__ = ["SERVER_SETTINGS", "Site", "serving_program", "serving_site"]

SERVER_SETTINGS = "uvicorn, 1 process, uvloop, httptools"
_HOST = "127.0.0.1"
_UP_TRIES = 400
_UP_PAUSE_S = 0.05
_BACKLOG = 16_384  # thousands of readers connect at once


class Site:
    """A running server and its port."""

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self.port = port

    def cpu_s(self) -> float:
        """User and system seconds of its processes so far."""
        return self._server.cpu_s()

    def resident_kib(self) -> int:
        """Resident memory of its processes together."""
        return sum(resident_kib(pid) for pid in self._server.pids())


@asynccontextmanager
async def serving_site(run: Run, target: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Site]:
    """Serve an ASGI application, `module:name`, until the end of the block."""
    port = free_port()
    options = f"--host {_HOST} --port {port} --loop uvloop --http httptools --ws none --backlog {_BACKLOG}".split()
    quiet = ["--log-level", "warning", "--no-access-log"]
    command = [sys.executable, "-m", "benchmarks.limits", "uvicorn", *options, *quiet, target]
    async with _serving(run, command, port, env) as site:
        yield site


@asynccontextmanager
async def serving_program(run: Run, module: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Site]:
    """A peer's own server, a program in its environment that is told its port, until the end of the block."""
    port = free_port()
    async with _serving(run, [str(run.subject.python(run.say)), "-m", module, str(port)], port, env) as site:
        yield site


@asynccontextmanager
async def _serving(run: Run, command: list[str], port: int, env: Mapping[str, str] | None) -> AsyncIterator[Site]:
    async with run.serving(*command, env=env or {}) as server:
        await _answers(port)
        yield Site(server, port)


async def _answers(port: int) -> None:
    for _ in range(_UP_TRIES):
        try:
            _, writer = await asyncio.open_connection(_HOST, port)
        except OSError:
            await asyncio.sleep(_UP_PAUSE_S)
        else:
            writer.close()
            return
    raise DriverFailed("the HTTP server did not come up")

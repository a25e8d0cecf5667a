"""What the tests of the front door share: the door as a process, raw sockets to knock with, its memory and its log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Door", "answer_to", "needs_proc", "opened"]

PROGRAM = Path(__file__).with_name("front_door.py")

needs_proc = not Path("/proc/self/status").exists(), "what a process has in memory is asked of /proc"


@dataclass
class Door:
    """A running front door: where it is, its tenants' keys, and what it has logged so far."""

    process: asyncio.subprocess.Process
    port: int
    keys: dict[str, str]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def memory_kib(self, name: str = "VmRSS") -> int:
        """`VmRSS`, what it has in memory; `VmHWM`, the most that it had since the last `forget_peak`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


@asynccontextmanager
async def opened(folder: Path, **given: Any) -> AsyncIterator[Door]:
    """A front door on a SQLite file in this folder."""
    log = folder / "door.log"
    spec = json.dumps({"url": f"sqlite:///{folder}/jobs.db", **given})
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), spec, stdout=asyncio.subprocess.PIPE, stderr=errors, cwd=folder
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            told = await process.stdout.readline()
        assert told, log.read_text()[-2000:]
        yield Door(process, log=log, **json.loads(told))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def answer_to(port: int, *pieces: bytes) -> bytes:
    """All that comes back to these bytes, until the server closes; empty when it closed without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
            with contextlib.suppress(ConnectionError):
                while part := await reader.read(65_536):
                    received += part
    finally:
        writer.transport.abort()
    return received

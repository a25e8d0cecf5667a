"""Starts what is measured, each in a process of its own, with a deadline, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

__all__ = ["REPOSITORY", "Child", "DriverFailed", "minded", "started"]

REPOSITORY = Path(__file__).parent.parent
_LINE_LIMIT = 64 * 2**20  # a result may carry a latency for every job
_GRACE_S = 8.0
_TAIL = 1500

Progress = Callable[[str], None]


class DriverFailed(Exception):
    """A driver ended without a result, or not in time."""


class Child:
    """A driver's process: wait for `ready`, for its `result`; tell it to `stop`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, progress: Progress) -> None:
        self._process = process
        self._log = log
        self._progress = progress

    @property
    def pid(self) -> int:
        return self._process.pid

    async def line(self) -> str:
        """The next line of its output, for programs that do not speak JSON."""
        return (await self._read()).decode().strip()

    async def ready(self) -> Mapping[str, Any]:
        """Wait until it says that it may begin."""
        return await self._hear("ready")

    async def heard(self) -> tuple[str, Mapping[str, Any]]:
        """The next thing that it says, whatever it is, with its name."""
        message: dict[str, Any] = json.loads(await self._read())
        return message.pop("event"), message

    async def result(self) -> Mapping[str, Any]:
        """Wait for its result."""
        return await self._hear("result")

    async def said(self, text: str) -> None:
        """Wait until it has got so far."""
        while (await self._hear("progress"))["text"] != text:
            pass

    def stop(self) -> None:
        """Ask it to finish and give its result."""
        self.tell("stop")

    def tell(self, word: str) -> None:
        """Say a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())

    async def end(self) -> None:
        """Close its standard input, which ends it; insist if it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _GRACE_S)
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)  # its own group: `start_new_session` made it the leader
            await self._process.wait()

    async def _hear(self, wanted: str) -> Mapping[str, Any]:
        while True:
            event, message = await self.heard()
            if event == "progress":
                self._progress(message["text"])
            if event == wanted:
                return message

    async def _read(self) -> bytes:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            code = await self._process.wait()
            raise DriverFailed(f"ended with {code}: {self._log.read_text(errors='replace')[-_TAIL:].strip()}")
        return line


@asynccontextmanager
async def started(
    command: Sequence[str], log: Path, progress: Progress, env: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """Run a command in the repository's folder, as the leader of its own group; ended on the way out."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            limit=_LINE_LIMIT,
            start_new_session=True,
        )
    child = Child(process, log, progress)
    try:
        yield child
    finally:
        await child.end()


def minded(*command: str) -> list[str]:
    """The command line of a program that is not ours, run by our minder."""
    return [sys.executable, "-m", "benchmarks.minder", *command]

"""A `ropeway` that serves, as a real process, and the application that it serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from ropeway.client import JobHandle

__all__ = ["APPLICATION", "Process", "started"]

APPLICATION = '''
import asyncio
from collections.abc import AsyncIterator
from ropeway import App, Context
from ropeway.runtime import given

app = App()

@app.task
async def greet(name: str) -> str:
    return f"Hello, {name}!"

@app.task
async def count(to: int, pause: float) -> AsyncIterator[int]:
    for n in range(to):
        yield n
        await asyncio.sleep(pause)

@app.task
async def second_time(*, ctx: Context = given) -> int:
    """Waits for ever, until it is tried again."""
    if ctx.attempt == 1:
        await asyncio.Event().wait()
    return ctx.attempt
'''
WATCHDOG_S = 120.0


class Process:
    """A `ropeway` that serves, in a folder with `served.py`; killed when a test would wait for it too long."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROPEWAY_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ropeway", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(WATCHDOG_S, self._process.kill)
        self._watchdog.start()
        self._said: list[str] = []
        self._news = threading.Condition()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def ready(self) -> dict[str, Any]:
        """The line that says that it serves."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"it ended instead of serving: {self.ended()}"
        told: dict[str, Any] = json.loads(line)
        return told

    def read(self) -> str:
        """All that it writes on stdout, until it ends."""
        assert self._process.stdout is not None
        return self._process.stdout.read()

    def child(self, command: str) -> int:
        """The pid of the child that runs this command."""
        return next(pid for pid in self.children if command in Path(f"/proc/{pid}/cmdline").read_text().split("\0"))

    @property
    def children(self) -> list[int]:
        """The pids of its child processes."""
        pid = self._process.pid
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def says(self, text: str) -> None:
        """Until it has said this on stderr."""
        with self._news:
            assert self._news.wait_for(lambda: any(text in line for line in self._said), WATCHDOG_S)

    def ended(self) -> tuple[int, str]:
        """Its exit code and what it said on stderr, once it has ended."""
        code = self._process.wait()
        self._listener.join()
        self._watchdog.cancel()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code, "".join(self._said)

    def stop(self) -> tuple[int, str]:
        self.signal(signal.SIGTERM)
        return self.ended()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr:
            for line in self._process.stderr:
                with self._news:
                    self._said.append(line)
                    self._news.notify_all()

    def close(self) -> None:
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
        self.ended()


async def started(job: JobHandle[Any]) -> None:
    """Until the job's first attempt has begun."""
    async for event in job.events():
        if event.type == "job.started":
            return

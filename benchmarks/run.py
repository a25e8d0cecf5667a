"""One measurement: a place of its own, the processes in it, and what they used."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.launch import Child, minded, started
from benchmarks.measure import descendants, tree_cpu_s
from benchmarks.settings import Settings
from benchmarks.store import Store, running_store
from benchmarks.subjects import Subject

__all__ = ["Run", "Server", "running"]


class Server:
    """A server process under measurement, with the children it made."""

    def __init__(self, minder: Child, pid: int) -> None:
        self._minder = minder
        self.pid = pid

    def cpu_s(self) -> float:
        """User and system seconds of all its processes so far."""
        return tree_cpu_s(self.pid)

    def pids(self) -> list[int]:
        return [self.pid, *descendants(self.pid)]


class Run:
    """A measurement of one subject: `do` runs a driver to its result, `start` one that stays."""

    def __init__(
        self, settings: Settings, subject: Subject, folder: Path, store: Store | None, say: Callable[[str], None]
    ) -> None:
        self.settings, self.subject, self.folder, self.store, self.say = settings, subject, folder, store, say

    @property
    def url(self) -> str:
        """Where the subject's jobs live."""
        if self.store is not None:
            asked = f"?durability={self.subject.sync}" if self.subject.group == "own" else ""
            return self.store.url + asked
        return "memory:" if self.subject.engine == "memory" else f"sqlite:///{self.folder / 'bench.db'}"

    async def do(
        self, verb: str, *, driver: str | None = None, env: Mapping[str, str] | None = None, **spec: Any
    ) -> Mapping[str, Any]:
        """Run the subject's driver, or another, until it gives its result."""
        async with self.start(verb, driver=driver, env=env, **spec) as child:
            return await child.result()

    @asynccontextmanager
    async def start(
        self, verb: str, *, driver: str | None = None, env: Mapping[str, str] | None = None, **spec: Any
    ) -> AsyncIterator[Child]:
        """The subject's driver, or another, running."""
        self.say(verb)
        python = Path(sys.executable) if driver else self.subject.python(self.say)
        asked = {"url": self.url, **self.subject.spec, **spec, "verb": verb}
        command = [str(python), "-m", driver or self.subject.driver, json.dumps(asked)]
        async with started(command, self.folder / "driver.log", self.say, env) as child:
            yield child

    @asynccontextmanager
    async def serving(self, *command: str, env: Mapping[str, str]) -> AsyncIterator[Server]:
        """A server that is not one of our drivers, running."""
        async with started(minded(*command), self.folder / "server.log", self.say, env) as minder:
            yield Server(minder, int(await minder.line()))

    async def store_cpu_s(self) -> float:
        """What the subject's server has used; 0 where there is none."""
        return 0.0 if self.store is None else await self.store.cpu_s()


@asynccontextmanager
async def running(
    settings: Settings, subject: Subject, binary: str | None, say: Callable[[str], None]
) -> AsyncIterator[Run]:
    """A fresh place for one measurement: its folder, and a fresh server if the subject needs one; both gone after."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=settings.folder))
    try:
        if not subject.needs_store:
            yield Run(settings, subject, folder, None, say)
        else:
            assert binary is not None
            async with running_store(binary, folder, subject.sync) as store:
                yield Run(settings, subject, folder, store, say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

"""The engines under test, and how each is made, reopened and killed."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from redis_harness import ClusterHarness, RedisHarness, RedisServerHarness, SpreadHarness
from ropeway.domain.clock import Clock
from ropeway.domain.errors import RopewayError
from ropeway.domain.ids import RandomBytes
from ropeway.engines.base import Engine
from ropeway.engines.sqlite import SqliteEngine
from ropeway.engines.sqlite.connection import SqliteOptions
from ropeway.testing.harness import FailpointHarness, Harness, MemoryHarness

__all__ = ["HARNESSES", "SharedRedisHarness", "SharedSpreadHarness", "SharedSqliteHarness", "SqliteHarness"]

MEMORY_DISK = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where test files live, if there is a disk in memory: thousands of fsyncs prove nothing here, and take minutes."""


class Killed(Exception):
    """Raised at a failpoint, in the place of a process that is gone."""


class _Store:
    """One engine's directory, and what makes another engine on it."""

    def __init__(self, clock: Clock, random: RandomBytes) -> None:
        self.clock = clock
        self.random = random
        self.home = Path(tempfile.mkdtemp(prefix="ropeway-", dir=MEMORY_DISK))
        self.beside: list[Engine] = []
        self.fatal: str | None = None
        self.image: Path | None = None

    @property
    def path(self) -> Path:
        return self.home / "jobs.db"

    async def open(self) -> Engine:
        engine = SqliteEngine(self.path, self.clock, self.random, SqliteOptions(failpoint=self.at_failpoint))
        await engine.open()
        return engine

    def at_failpoint(self, point: str) -> None:
        """Where `die` said so, keep what a killed process would leave, and end the call."""
        if point == self.fatal:
            self.fatal = None
            self.keep_image()
            raise Killed(point)

    def keep_image(self) -> None:
        """Copy the files as they are: the page cache outlives a killed process, its connections do not."""
        self.image = Path(tempfile.mkdtemp(prefix="ropeway-", dir=MEMORY_DISK))
        for name in ("jobs.db", "jobs.db-wal"):
            if (self.home / name).exists():
                shutil.copyfile(self.home / name, self.image / name)

    async def go_on(self, dead: Engine) -> Engine:
        """An engine on the image; the dead one, which no longer matters, lets go of its own files."""
        if self.image is None:
            self.keep_image()
        for engine in (dead, *self.beside):
            with suppress(RopewayError):
                await engine.shut()
        self.beside.clear()
        shutil.rmtree(self.home)
        assert self.image is not None
        self.home, self.image = self.image, None
        return await self.open()

    async def delete(self) -> None:
        for engine in self.beside:
            await engine.shut()
        shutil.rmtree(self.home)


class SqliteHarness:
    """The SQLite engine, each on a file of its own in a new directory."""

    name = "sqlite"
    failpoints = ("pre_commit", "post_commit")

    def __init__(self) -> None:
        self._stores: dict[int, _Store] = {}

    async def start(self, clock: Clock, random: RandomBytes) -> Engine:
        store = _Store(clock, random)
        return self._keep(store, await store.open())

    async def stop(self, engine: Engine) -> None:
        store = self._stores.pop(id(engine))
        await engine.shut()
        await store.delete()

    async def reopen(self, engine: Engine) -> Engine:
        store = self._stores.pop(id(engine))
        await engine.shut()
        return self._keep(store, await store.open())

    async def crash(self, engine: Engine) -> Engine:
        store = self._stores.pop(id(engine))
        return self._keep(store, await store.go_on(engine))

    async def beside(self, engine: Engine) -> Engine:
        store = self._stores[id(engine)]
        other = await store.open()
        store.beside.append(other)
        return other

    async def die(self, engine: Engine, point: str, call: Callable[[], Awaitable[object]]) -> Engine:
        store = self._stores.pop(id(engine))
        store.fatal = point
        with suppress(Killed, RopewayError):
            await call()
        store.fatal = None
        return self._keep(store, await store.go_on(engine))

    def _keep(self, store: _Store, engine: Engine) -> Engine:
        self._stores[id(engine)] = store
        return engine


class _Shared:
    """Two engines on each store, as two processes have it, asked in turn; a crash takes both."""

    def __init__(self, alone: FailpointHarness) -> None:
        self.name = f"{alone.name}-shared"
        self.failpoints = alone.failpoints
        self._alone = alone

    async def start(self, clock: Clock, random: RandomBytes) -> Engine:
        return await self._shared(await self._alone.start(clock, random))

    async def stop(self, engine: Engine) -> None:
        await self._alone.stop(_first(engine))

    async def reopen(self, engine: Engine) -> Engine:
        return await self.crash(engine)

    async def crash(self, engine: Engine) -> Engine:
        return await self._shared(await self._alone.crash(_first(engine)))

    async def beside(self, engine: Engine) -> Engine:
        return await self._alone.beside(_first(engine))

    async def die(self, engine: Engine, point: str, call: Callable[[], Awaitable[object]]) -> Engine:
        return await self._shared(await self._alone.die(_first(engine), point, call))

    async def _shared(self, first: Engine) -> Engine:
        return cast(Engine, _InTurn(first, await self._alone.beside(first)))


class SharedSqliteHarness(_Shared):
    """Two SQLite engines on one file."""

    def __init__(self) -> None:
        super().__init__(SqliteHarness())


class SharedRedisHarness(_Shared):
    """Two Redis engines on one prefix of a Valkey server."""

    def __init__(self) -> None:
        super().__init__(RedisHarness())


class SharedSpreadHarness(_Shared):
    """Two Redis engines on one prefix that is spread over a cluster."""

    def __init__(self) -> None:
        super().__init__(SpreadHarness())


class _InTurn:
    """Each call is another engine's than the one before."""

    def __init__(self, first: Engine, second: Engine) -> None:
        self.first = first
        self._turns = itertools.cycle((first, second))

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._turns), name)


def _first(engine: Engine) -> Engine:
    assert isinstance(engine, _InTurn)
    return engine.first


HARNESSES: list[Harness] = [
    MemoryHarness(),
    SqliteHarness(),
    RedisHarness(),
    RedisServerHarness(),
    ClusterHarness(),
    SpreadHarness(),
]

"""The Redis engine under test: each store under a prefix of its own on one shared server."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ropeway.domain.clock import Clock
from ropeway.domain.errors import RopewayError
from ropeway.domain.ids import RandomBytes
from ropeway.engines.base import Engine
from ropeway.engines.redis import RedisEngine
from servers import Server, shared_server

__all__ = ["Killed", "RedisHarness"]

_WRITES = frozenset({"submit", "lease", "append", "commit", "move"})

_prefixes = itertools.count(1)


class Killed(Exception):
    """Raised at a failpoint, in the place of a process that is gone."""


class _Store:
    """One prefix, and what makes engines on it."""

    def __init__(self, url: str, clock: Clock, random: RandomBytes) -> None:
        self.url = url
        self.clock = clock
        self.random = random
        self.beside: list[Engine] = []
        self.fatal: str | None = None

    async def open(self) -> Engine:
        engine = RedisEngine(self.url, self.clock, self.random, failpoint=self.at_failpoint)
        await engine.open()
        return engine

    def at_failpoint(self, point: str, script: str) -> None:
        """Where `die` said so, end the call: what the server has done stays done."""
        if point == self.fatal and script in _WRITES:
            self.fatal = None
            raise Killed(point)


class RedisHarness:
    """Engines on a server of `binary` (Valkey, when None)."""

    failpoints = ("pre_script", "post_script")

    def __init__(self, name: str = "valkey", binary: str | None = None, options: str = "") -> None:
        self.name = name
        self._binary = binary
        self._options = options
        self._stores: dict[int, _Store] = {}

    def server(self) -> Server:
        return shared_server(self._binary)

    def url(self, prefix: str) -> str:
        return f"{self.server().url}?prefix={prefix}{self._options}"

    async def start(self, clock: Clock, random: RandomBytes) -> Engine:
        store = _Store(self.url(f"t{next(_prefixes)}"), clock, random)
        return self._keep(store, await store.open())

    async def stop(self, engine: Engine) -> None:
        store = self._stores.pop(id(engine))
        for each in (engine, *store.beside):
            await each.shut()
        await self.delete(store)

    async def delete(self, store: _Store) -> None:
        """Nothing: keys of other prefixes disturb nobody, and the server goes with the tests."""

    async def reopen(self, engine: Engine) -> Engine:
        store = self._stores.pop(id(engine))
        await engine.shut()
        return self._keep(store, await store.open())

    async def crash(self, engine: Engine) -> Engine:
        store = self._stores.pop(id(engine))
        for dead in (engine, *store.beside):
            with suppress(RopewayError):
                await dead.shut()
        store.beside.clear()
        return self._keep(store, await store.open())

    async def beside(self, engine: Engine) -> Engine:
        store = self._stores[id(engine)]
        other = await store.open()
        store.beside.append(other)
        return other

    async def die(self, engine: Engine, point: str, call: Callable[[], Awaitable[object]]) -> Engine:
        self._stores[id(engine)].fatal = point
        with suppress(Killed, RopewayError):
            await call()
        self._stores[id(engine)].fatal = None
        return await self.crash(engine)

    def _keep(self, store: _Store, engine: Engine) -> Engine:
        self._stores[id(engine)] = store
        return engine

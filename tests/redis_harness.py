"""The Redis engine under test: each store under a prefix of its own on servers that all tests share."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ropeway.domain.clock import Clock
from ropeway.domain.errors import RopewayError
from ropeway.domain.finding import Finding
from ropeway.domain.ids import RandomBytes
from ropeway.engines.base import Engine
from ropeway.engines.redis import RedisEngine
from ropeway.engines.redis.fsck import inspect
from servers import redis_binary, shared_server
from topologies import shared_cluster

__all__ = ["ClusterHarness", "Killed", "RedisHarness", "RedisServerHarness", "SpreadHarness", "Untidy"]

_prefixes = itertools.count(1)


class Killed(Exception):
    """Raised at a failpoint, in the place of a process that is gone."""


class Untidy(Exception):
    """A store was left with what should not be there."""


class _Store:
    """One prefix, and what makes engines on it. `scripts` counts those of the call that an engine is to die in."""

    def __init__(self, url: str, clock: Clock, random: RandomBytes, writes: frozenset[str]) -> None:
        self.url = url
        self.writes = writes
        self.clock = clock
        self.random = random
        self.beside: list[Engine] = []
        self.fatal: str | None = None
        self.scripts = 0

    async def open(self) -> RedisEngine:
        engine = RedisEngine(self.url, self.clock, self.random, failpoint=self.at_failpoint)
        await engine.open()
        return engine

    async def findings(self, engine: RedisEngine) -> list[Finding]:
        """What is wrong in the store: keys without an owner, jobs without a place, counts that do not add up."""
        return [finding for partition in engine.partitions for finding in await inspect(partition)]

    async def delete(self, engine: RedisEngine) -> None:
        """Every key, so that the servers stay as small as one test."""
        for partition in engine.partitions:
            link = await partition.route.link(asyncio.get_running_loop().time() + 5)
            cursor = "0"
            while True:
                cursor, keys = await link.do("SCAN", cursor, "MATCH", f"{partition.root}:*", "COUNT", 1000)
                if keys:
                    await link.do("UNLINK", *keys)
                if cursor == "0":
                    break

    def at_failpoint(self, point: str, script: str) -> None:
        """Where `die` said so, end the call: what the server has done stays done."""
        if self.fatal is None:
            return
        self.scripts += point == "post_script"
        is_nth = point == "post_script" and self.fatal == f"script_{self.scripts}"
        if is_nth or (point == self.fatal and script in self.writes):
            self.fatal = None
            raise Killed(point)


class RedisHarness:
    """Engines on one Valkey server."""

    name = "valkey"
    failpoints: tuple[str, ...] = ("pre_script", "post_script")
    """And `script_1`, `script_2`, ...: after that script of the call, whatever it does."""
    writes = frozenset({"submit", "lease", "append", "commit", "move"})
    """The scripts that the first two are about."""

    def __init__(self) -> None:
        self._stores: dict[int, _Store] = {}

    def url(self, prefix: str) -> str:
        return f"{shared_server().url}?prefix={prefix}"

    async def start(self, clock: Clock, random: RandomBytes) -> Engine:
        store = _Store(self.url(f"t{next(_prefixes)}"), clock, random, self.writes)
        return self._keep(store, await store.open())

    async def stop(self, engine: Engine) -> None:
        """And nothing may be left in the store that nobody accounts for. Raises Untidy, telling what there is."""
        store = self._stores.pop(id(engine))
        for each in (engine, *store.beside):
            await each.shut()
        last = await store.open()
        try:
            if findings := await store.findings(last):
                raise Untidy(findings)
        finally:
            await store.delete(last)
            await last.shut()

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
        store = self._stores[id(engine)]
        store.fatal, store.scripts = point, 0
        with suppress(Killed, RopewayError):
            await call()
        store.fatal = None
        return await self.crash(engine)

    def _keep(self, store: _Store, engine: Engine) -> Engine:
        self._stores[id(engine)] = store
        return engine


class RedisServerHarness(RedisHarness):
    """Engines on one Redis server."""

    name = "redis"

    def url(self, prefix: str) -> str:
        return f"{shared_server(redis_binary()).url}?prefix={prefix}"


class ClusterHarness(RedisHarness):
    """Engines on a cluster of three nodes, each store on one of them."""

    name = "cluster"

    def url(self, prefix: str) -> str:
        return f"{shared_cluster().url}?prefix={prefix}"


class SpreadHarness(RedisHarness):
    """Engines on a cluster of three nodes, each store spread over all of them.

    They do not die within a submit. A key is claimed before its job is submitted, elsewhere: who dies in between leaves
    the key, until the claim expires, to those who come with the same body, and nobody has made its job.
    """

    name = "spread"
    failpoints = ("post_script",)
    writes = RedisHarness.writes - {"submit"}

    def url(self, prefix: str) -> str:
        return f"{shared_cluster().url}?prefix={prefix}&partitions=3"

"""The start-up proof: what a server must be to be used, what it is worth, and what happens when that changes."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.job import NewJob
from ropeway.engines.redis import RedisEngine
from ropeway.engines.redis.address import Node, parse
from ropeway.engines.redis.link import Link, LinkDown, Refused
from ropeway.engines.redis.proof import Proof, prove
from ropeway.engines.redis.rights import acl_rules
from ropeway.engines.redis.route import Unsafe
from servers import Server

PATIENCE_S = 20.0

HEALTHY = {
    "redis_version": "7.2.4",
    "valkey_version": "8.0.1",
    "role": "master",
    "loading": "0",
    "cluster_enabled": "0",
    "maxmemory": "0",
    "maxmemory_policy": "noeviction",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "uptime_in_seconds": "99",
}


class _Told:
    """A link to a server that says of itself what a test wants."""

    node = Node("h", 6379)

    def __init__(self, info: dict[str, str], fsync: str | None) -> None:
        self._info = info
        self._fsync = fsync

    async def do(self, *command: str) -> Any:
        if command == ("INFO",):
            return "# Server\r\n" + "\r\n".join(f"{name}:{value}" for name, value in self._info.items())
        assert command == ("CONFIG", "GET", "appendfsync")
        return Refused("NOPERM") if self._fsync is None else {"appendfsync": self._fsync}


async def proved(fsync: str | None = "everysec", options: str = "", without: str = "", **changes: str) -> Proof:
    """What is made of a healthy server with these changes."""
    info = {name: value for name, value in {**HEALTHY, **changes}.items() if name != without}
    return await prove(cast(Link, _Told(info, fsync)), parse(f"redis://h{options}"))


async def refusal(**given: Any) -> str:
    """Why such a server is refused."""
    with pytest.raises(Unsafe) as refused:
        await proved(**given)
    return refused.value.detail


@pytest.mark.parametrize(
    ("version", "allowed"),
    [("7.1.9", False), ("6.2.14", False), ("7.2.0", True), ("7.2.5-rc1", True), ("8.1.1", True), ("10.0.0", True)],
)
async def test_an_old_valkey_is_refused(version: str, allowed: bool) -> None:
    """Below 7.2; the refusal says what is needed."""
    if allowed:
        assert (await proved(valkey_version=version)).version == version
    else:
        assert "valkey 7.2 or newer is needed" in await refusal(valkey_version=version)


@pytest.mark.parametrize(("version", "allowed"), [("6.2.14", False), ("7.0.0", True), ("8.2.1", True)])
async def test_an_old_redis_is_refused(version: str, allowed: bool) -> None:
    """Below 7.0. A server that tells no Valkey version is a Redis."""
    if allowed:
        proof = await proved(without="valkey_version", redis_version=version)
        assert (proof.server, proof.version) == ("redis", version)
    else:
        assert "redis 7.0 or newer" in await refusal(without="valkey_version", redis_version=version)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_a_server_that_may_evict_is_refused(policy: str) -> None:
    """Accepted jobs would go when its memory is full; the remedy is the setting."""
    told = await refusal(maxmemory_policy=policy)
    assert policy in told
    assert "set `maxmemory-policy noeviction`" in told


async def test_a_place_that_is_not_the_right_one_is_refused() -> None:
    """A replica, and a cluster's node that is taken for a server of its own: each with what to write instead."""
    assert "+sentinel" in await refusal(role="slave")
    assert "redis+cluster://" in await refusal(cluster_enabled="1")


@pytest.mark.parametrize(
    ("fsync", "aof", "durability", "warnings"),
    [
        ("always", "1", "disk", 0),
        ("everysec", "1", "window", 0),
        ("no", "1", "window", 1),
        (None, "1", "window", 1),
        ("always", "0", "memory", 1),
    ],
)
async def test_the_class_follows_from_the_append_only_file(
    fsync: str | None, aof: str, durability: str, warnings: int
) -> None:
    """How often it is synced; what cannot be seen is not assumed to be the best."""
    proof = await proved(fsync=fsync, options="?durability=memory", aof_enabled=aof)
    assert (proof.durability, len(proof.warnings)) == (durability, warnings)


@pytest.mark.parametrize(
    ("options", "fsync", "aof", "remedy"),
    [
        ("", "everysec", "0", "appendonly yes"),
        ("?durability=window", "always", "0", "durability=memory"),
        ("?durability=disk", "everysec", "1", "appendfsync always"),
        ("?durability=disk", None, "1", "+config|get"),
    ],
)
async def test_less_than_is_asked_for_is_refused(options: str, fsync: str | None, aof: str, remedy: str) -> None:
    """The class that the URL asks for, `window` by default, is the least that will do."""
    assert remedy in await refusal(options=options, fsync=fsync, aof_enabled=aof)


async def test_a_server_that_cannot_write_its_file_is_refused() -> None:
    """What it acknowledges now would not be there after a restart. A rewrite that failed loses nothing: a warning."""
    assert "look at its disk" in await refusal(aof_last_write_status="err")
    proof = await proved(fsync="always", aof_last_bgrewrite_status="err")
    assert proof.durability == "disk"
    assert "rewrite" in proof.warnings[0]


async def test_a_server_that_loads_is_waited_for() -> None:
    """It is not refused: while it reads its file it says that it has none."""
    with pytest.raises(LinkDown):
        await proved(loading="1", aof_enabled="0")


# -- on real servers


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server("--appendonly", "yes", "--appendfsync", "everysec").start()
    yield server
    server.delete()


@asynccontextmanager
async def opened(
    server: Server, options: str = "", prove_s: float = 30.0, user: str = ""
) -> AsyncIterator[RedisEngine]:
    engine = RedisEngine(f"redis://{user}127.0.0.1:{server.port}?prefix=proof{options}", prove_s=prove_s)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.shut()


def a_job(number: int) -> NewJob:
    return NewJob(f"job-{number}", "t", "q", "echo", "{}")


@pytest.mark.parametrize("fsync", ["always", "everysec", "no"])
async def test_a_real_servers_class_is_told(server: Server, fsync: str, caplog: pytest.LogCaptureFixture) -> None:
    """In what the engine says of itself, and in the log once, with the server's name and version."""
    server.ask(f"CONFIG SET appendfsync {fsync}")
    with caplog.at_level(logging.INFO, "ropeway.engine"):
        async with opened(server, prove_s=0.02) as engine:
            info = engine.info
            await until(lambda: proofs_of(server, more_than=3))
    durability = "disk" if fsync == "always" else "window"
    assert info.durability == durability
    assert info.version.startswith("valkey 9")
    assert bool(info.warnings) == (fsync == "no")
    assert f"class {durability}" in caplog.text
    assert caplog.text.count("may take half a minute") == (fsync == "no"), "it was told again and again"


async def proofs_of(server: Server, more_than: int) -> bool:
    """Whether the server was looked at so often: each look asks for its configuration."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as wire:
        wire.sendall(b"INFO commandstats\r\nQUIT\r\n")
        text = b"".join(iter(lambda: wire.recv(65_536), b"")).decode()
    return int(text.partition("cmdstat_config|get:calls=")[2].partition(",")[0] or "0") > more_than


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition. Raises AssertionError when it does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.01)


async def test_a_policy_that_turns_unsafe_stops_the_engine_until_it_is_safe(server: Server) -> None:
    """The server is looked at again and again: while it may evict jobs every call is refused with the remedy."""
    async with opened(server, prove_s=0.02) as engine:
        await engine.submit([a_job(1)])
        server.ask("CONFIG SET maxmemory-policy allkeys-lru")
        refusals: list[EngineUnavailable] = []

        async def is_refused() -> bool:
            try:
                await engine.stats()
            except EngineUnavailable as error:
                refusals.append(error)
            return bool(refusals)

        await until(is_refused)
        assert "noeviction" in refusals[0].detail
        with pytest.raises(EngineUnavailable, match="allkeys-lru"):
            await engine.submit([a_job(2)])
        server.ask("CONFIG SET maxmemory-policy noeviction")
        await engine.submit([a_job(3)])
        assert [job is not None for job in await engine.get("t", ["job-1", "job-2", "job-3"])] == [True, False, True]


async def test_a_class_that_changes_is_told_anew(server: Server) -> None:
    """A server that begins to sync every write is of class `disk` from the next look on; one that ceases is refused
    where `disk` is asked for."""
    async with opened(server, prove_s=0.02) as engine:
        server.ask("CONFIG SET appendfsync always")

        async def is_disk() -> bool:
            return engine.info.durability == "disk"

        await until(is_disk)
    async with opened(server, "&durability=disk", prove_s=0.02) as engine:
        server.ask("CONFIG SET appendfsync everysec")

        async def is_refused() -> bool:
            try:
                await engine.stats()
            except EngineUnavailable as error:
                return "appendfsync always" in error.detail
            return False

        await until(is_refused)


async def test_a_replica_is_refused(server: Server) -> None:
    """A real one, of a real master."""
    replica = Server("--appendonly", "yes", "--replicaof", "127.0.0.1", str(server.port))
    try:
        replica.start()
        with pytest.raises(EngineUnavailable, match="replica"):
            async with opened(replica):
                pass
    finally:
        replica.delete()


async def test_a_server_without_a_file_is_used_where_that_is_accepted(server: Server) -> None:
    """Refused by default; with `?durability=memory` used, with a warning."""
    server.ask("CONFIG SET appendonly no")
    with pytest.raises(EngineUnavailable, match="appendonly yes"):
        async with opened(server):
            pass
    async with opened(server, "&durability=memory") as engine:
        assert engine.info.durability == "memory"
        assert "no append-only file" in engine.info.warnings[0]


async def test_a_user_who_may_not_see_the_configuration_gets_class_window(server: Server) -> None:
    """Where CONFIG is not allowed the class is assumed, and the warning says so; without INFO nothing is."""
    server.ask("CONFIG SET appendfsync always")
    server.ask(f"ACL SETUSER blind on >pw {acl_rules('proof')} -config|get")
    server.ask(f"ACL SETUSER blinder on >pw {acl_rules('proof')} -info")
    async with opened(server, user="blind:pw@") as engine:
        assert engine.info.durability == "window"
        assert "not allowed" in engine.info.warnings[0]
    with pytest.raises(EngineUnavailable, match=r"allow \+info"):
        async with opened(server, user="blinder:pw@"):
            pass

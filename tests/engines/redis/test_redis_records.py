"""Records and buckets on the server: where they lie, when they go, and what a lost reply does to them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from link_support import Store, eventually, quick, wire
from proxy import drop

from redis_harness import RedisHarness, SpreadHarness
from ropeway.domain.bucket import Spend
from ropeway.domain.errors import EngineUnavailable, OutcomeUnknown
from ropeway.domain.record import Put, Record, RecordKey
from ropeway.engines.redis import RedisEngine
from ropeway.engines.redis.partition import Partition
from ropeway.testing.bench import Bench
from servers import Server

__all__ = ["quick"]

KEY = RecordKey("file", "acme", "f")
CALLS = Spend("acme/calls", 1, 0.001, 10)


async def record(store: Store) -> Record | None:
    return (await store.engine.fetch([KEY]))[0]


async def left(store: Store) -> float:
    """What the bucket holds, to a hundredth: the server's clock goes on."""
    return round((await store.engine.spend([Spend("acme/calls", 0, 0.001, 10)]))[0].left, 2)


async def load_scripts(store: Store) -> None:
    """So that the server knows them: who sends one that it does not know must hear that, and sends its text."""
    other = RecordKey("other", "acme", "f")
    await store.engine.put([Put(other, "{}")])
    await store.engine.drop([other])
    await store.engine.spend([Spend("other/calls", 1, 1, 1)])


def is_written(store: Store, body: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        found = await record(store)
        return found is not None and found.body == body

    return look


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("expected", [None, 0])
async def test_a_put_whose_reply_was_lost_is_written_once(expected: int | None) -> None:
    """The server took it, the reply never came: the call is repeated, and is answered as it was the first time."""
    async with wire(timeout_s=1.0) as on:
        await load_scripts(on.near)
        on.proxy.plan = drop("replies")
        call = asyncio.create_task(on.far.engine.put([Put(KEY, '"mine"', expected)]))
        await eventually(is_written(on.near, '"mine"'), "the server has the record")
        on.proxy.heal()
        (answer,) = await call
        assert isinstance(answer, Record)
        assert (answer.version, answer) == (1, await record(on.near))


@pytest.mark.usefixtures("quick")
async def test_a_lost_put_that_another_wrote_over_is_an_unknown_outcome() -> None:
    """A conflict that its own first run may have made is told as no conflict: who reads again knows what is there."""
    async with wire(timeout_s=1.0) as on:
        await load_scripts(on.near)
        on.proxy.plan = drop("replies")
        call = asyncio.create_task(on.far.engine.put([Put(KEY, '"mine"', 0)]))
        await eventually(is_written(on.near, '"mine"'), "the server has the record")
        await on.near.engine.put([Put(KEY, '"theirs"', 1)])
        on.proxy.heal()
        with pytest.raises(OutcomeUnknown):
            await call
        assert await is_written(on.near, '"theirs"')()


@pytest.mark.usefixtures("quick")
async def test_what_a_repeat_would_falsify_is_not_repeated() -> None:
    """A drop and a spend happen once, and are an unknown outcome when the reply is lost."""
    async with wire(timeout_s=1.0) as on:
        await load_scripts(on.near)
        await on.near.engine.put([Put(KEY, "{}")])
        await on.far.engine.spend([CALLS])
        on.proxy.plan = drop("replies")
        calls = [on.far.engine.drop([KEY]), on.far.engine.spend([CALLS])]
        told = await asyncio.gather(*calls, return_exceptions=True)
        on.proxy.heal()
        assert [type(answer) for answer in told] == [OutcomeUnknown, OutcomeUnknown]
        assert await record(on.near) is None
        assert await left(on.near) == 8


async def test_a_full_server_still_bounds_and_forgets() -> None:
    """Its memory is full: no record is taken, but rates are kept, and what is there can be read and dropped."""
    server = Server().start()
    try:
        async with wire(server) as on:
            await on.near.engine.put([Put(KEY, "{}")])
            server.do("CONFIG", "SET", "maxmemory", "100kb")
            with pytest.raises(EngineUnavailable, match="OOM"):
                await on.near.engine.put([Put(KEY, "{}")])
            assert [allowance.granted for allowance in await on.near.engine.spend([CALLS])] == [True]
            assert await record(on.near) is not None
            assert await on.near.engine.drop([KEY]) == [True]
    finally:
        server.delete()


async def test_a_full_bucket_is_no_key() -> None:
    """A bucket that misses something is kept until it is full by the server's clock, and a minute longer."""
    bench = await Bench.start(RedisHarness())
    (partition,) = cast(RedisEngine, bench.engine).partitions
    key = f"{partition.root}:bucket:acme/x"
    await bench.engine.spend([Spend("acme/x", 6, 2, 10)])
    assert 62_000 < int(await ask(partition, "PTTL", key)) <= 63_000
    await bench.engine.spend([Spend("acme/x", 54, 2, 10, force=True)])
    assert 89_000 < int(await ask(partition, "PTTL", key)) <= 90_000
    await bench.engine.spend([Spend("acme/x", -60, 2, 10)])
    assert await ask(partition, "EXISTS", key) == "0"
    await bench.stop()


async def test_records_are_spread_by_kind_and_tenant() -> None:
    """Those of one kind and tenant lie in one partition, and an owner's buckets too; others elsewhere."""
    bench = await Bench.start(SpreadHarness())
    tenants = [f"t{n}" for n in range(30)]
    await bench.engine.put([Put(RecordKey("file", tenant, f"{n}"), "{}") for tenant in tenants for n in range(3)])
    for tenant in tenants:
        await bench.engine.spend([Spend(f"{tenant}/a", 1, 1, 10), Spend(f"{tenant}/b", 1, 1, 10)])
        await bench.engine.spend([Spend(f"{tenant}/c", 1, 1, 10)])
    used = 0
    found: dict[str, int] = {}
    for partition in cast(RedisEngine, bench.engine).partitions:
        here = {tenant: [await ask(partition, "HLEN", f"{partition.root}:rec:file {tenant}"),
                         *[await ask(partition, "EXISTS", f"{partition.root}:bucket:{tenant}/{n}") for n in "abc"]]
                for tenant in tenants}  # fmt: skip
        assert all(told[0] in ("0", "3") and told[1:] in (["0"] * 3, ["1"] * 3) for told in here.values())
        found.update({tenant: 3 for tenant, told in here.items() if told[0] == "3"})
        used += any(told[0] == "3" for told in here.values()) and any(told[1] == "1" for told in here.values())
    assert (len(found), used) == (30, 3)
    await bench.stop()


async def ask(partition: Partition, *command: str) -> str:
    """A raw command's answer."""
    link = await partition.route.link(asyncio.get_running_loop().time() + 5)
    answer = await link.do(*command)
    assert not isinstance(answer, Exception), answer
    return str(answer)

"""Retention by bytes: what ended jobs come to, what leaves first when that is too much, and what never leaves."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
import pytest

from redis_harness import RedisHarness
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.event import OUTPUT_DELTA
from ropeway.domain.job import JobOptions
from ropeway.domain.lifecycle import State
from ropeway.engines.redis import RedisEngine
from ropeway.engines.redis.fsck import inspect
from ropeway.testing.bench import TENANT, Bench
from servers import Server, shared_server

HOUR = JobOptions(retention_s=3600)
DAY = JobOptions(retention_s=86_400)
FOR_EVER = JobOptions(retention_s=None)
BIG = '"' + "x" * 5_000 + '"'


class _Harness(RedisHarness):
    """Engines with options in their URL."""

    def __init__(self, options: str) -> None:
        super().__init__()
        self._options = options

    def url(self, prefix: str) -> str:
        return super().url(prefix) + self._options


async def bench_of(options: str) -> Bench:
    return await Bench.start(_Harness(options))


async def kept_bytes(engine: RedisEngine) -> int:
    partition = engine.partitions[0]
    link = await partition.route.link(asyncio.get_running_loop().time() + 5)
    return int(await link.do("HGET", f"{partition.root}:meta", "kept_bytes") or 0)


async def end(bench: Bench, job_id: str, options: JobOptions, kind: str = "succeeded", output: str = BIG) -> None:
    held = await bench.start_job(job_id, options=options)
    await bench.commit(held, kind, output=output)


async def test_those_that_would_leave_next_leave_first() -> None:
    """Above the limit jobs go before their time, in the order in which it would come, until the rest fits."""
    bench = await bench_of("&keep_bytes=12000")
    await end(bench, "a-day", DAY)
    for name in ("first", "second", "third"):
        await end(bench, name, HOUR)
        bench.clock.advance(1000)
    assert await bench.engine.prune(100) == 2
    assert await bench.states("first", "second", "third", "a-day") == [None, None, State.succeeded, State.succeeded]
    assert 10_000 < await kept_bytes(cast(RedisEngine, bench.engine)) <= 12_000
    assert await bench.engine.prune(100) == 0
    await bench.stop()


async def test_what_is_kept_for_ever_never_leaves() -> None:
    """Jobs without a retention are not counted and not taken, nor are those that live."""
    bench = await bench_of("&keep_bytes=1")
    await end(bench, "for-ever", FOR_EVER)
    await end(bench, "dead", JobOptions(), "failed")
    assert await kept_bytes(cast(RedisEngine, bench.engine)) == 0
    await end(bench, "an-hour", HOUR)
    await bench.add("waits", input=BIG)
    assert await bench.engine.prune(100) == 1
    assert await bench.states("for-ever", "dead") == [State.succeeded, State.failed]
    assert await bench.states("waits", "an-hour") == [State.queued, None]
    await bench.stop()


async def test_a_prune_takes_no_more_than_it_is_told() -> None:
    """The limit of jobs holds for both reasons together; the next prune goes on."""
    bench = await bench_of("&keep_bytes=1")
    await end(bench, "old", JobOptions(retention_s=1))
    bench.clock.advance(2000)
    for n in range(4):
        await end(bench, f"job-{n}", HOUR)
    assert [await bench.engine.prune(2) for _ in range(4)] == [2, 2, 1, 0]
    await bench.stop()


@pytest.mark.parametrize("kind", ["succeeded", "failed", "cancelled"])
async def test_all_that_a_job_holds_is_counted(kind: str) -> None:
    """Its input, its output, its error and its events; and all of it is taken off when it goes."""
    bench = await bench_of("")
    engine = cast(RedisEngine, bench.engine)
    options = JobOptions(retention_s=60, failed_retention_s=60)
    held = await bench.start_job("a", input=BIG, options=options)
    await bench.append(held, 1, (OUTPUT_DELTA, BIG))
    await bench.append(held, 2, (OUTPUT_DELTA, BIG))
    await bench.commit(held, kind, output=BIG, error=BIG if kind == "failed" else None)
    wanted = 5_000 * (5 if kind == "failed" else 4)
    assert wanted < await kept_bytes(engine) < wanted + 1_000
    assert await inspect(engine.partitions[0]) == []
    assert await engine.purge(TENANT, ["a"]) == [None]
    assert await kept_bytes(engine) == 0
    await bench.stop()


async def test_every_way_to_end_is_counted() -> None:
    """A cancel while it waits, a rescue that was the last, a deadline that passed: what was added is taken off."""
    bench = await bench_of("")
    engine = cast(RedisEngine, bench.engine)
    kept = JobOptions(retention_s=60, failed_retention_s=60)
    await bench.add("cancelled", options=kept)
    await bench.cancel("cancelled")
    await bench.start_job("lost", options=msgspec.structs.replace(kept, max_crashes=1))
    await bench.expire()
    await bench.add("late", options=msgspec.structs.replace(kept, queue_timeout_s=1))
    bench.clock.advance(1500)
    await engine.promote(10)
    assert await bench.states("cancelled", "lost", "late") == [State.cancelled, State.failed, State.failed]
    assert await kept_bytes(engine) > 0
    assert await inspect(engine.partitions[0]) == []
    bench.clock.advance(120_000)
    assert await engine.prune(100) == 3
    assert await kept_bytes(engine) == 0
    await bench.stop()


async def test_half_of_the_servers_memory_is_the_default() -> None:
    """With `maxmemory` on the server ended jobs may take half of it; without, as much as there is."""
    server = Server("--appendonly", "yes", "--appendfsync", "no", "--maxmemory", "40mb").start()
    try:
        assert await limit_of(server.url) == 20 * 1024 * 1024
        assert await limit_of(f"{server.url}?keep_bytes=1000") == 1000
        assert await limit_of(shared_server().url) is None
    finally:
        server.delete()


async def limit_of(url: str) -> int | None:
    engine = RedisEngine(url)
    await engine.open()
    limit = engine.keep_bytes
    await engine.shut()
    return limit


@pytest.mark.parametrize("value", ["0", "-5", "much", "1.5"])
def test_a_limit_that_is_none_is_refused(value: str) -> None:
    """The option is a number of bytes above 0."""
    with pytest.raises(InvalidRequest, match="keep_bytes"):
        RedisEngine(f"redis://127.0.0.1?keep_bytes={value}")

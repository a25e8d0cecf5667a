"""More than one server: a cluster whose slots move and whose nodes fall, and a master that sentinels replace."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from redis_harness import SpreadHarness
from ropeway.domain.errors import EngineUnavailable, LeaseLost, OutcomeUnknown
from ropeway.domain.event import START, SUCCEEDED
from ropeway.domain.job import JobQuery, NewJob, Receipt
from ropeway.domain.lease import Commit, LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.worker import WorkerCard
from ropeway.engines.base import Engine
from ropeway.engines.redis import RedisEngine
from ropeway.engines.redis.route import slot_of
from ropeway.testing.bench import QUEUE, SESSION, TENANT, as_
from ropeway.testing.clock import ManualClock
from ropeway.testing.random import seeded_random
from servers import free_port, until
from topologies import Cluster, Watched, follows, shared_cluster

PATIENCE_S = 30.0
DONE = Outcome("succeeded", '"done"')
WORKER = WorkerCard(SESSION, SESSION, (QUEUE,), ttl_ms=600_000)

_prefixes = itertools.count(1)


def a_job(job_id: str) -> NewJob:
    return NewJob(job_id, TENANT, QUEUE, "echo", "{}")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisEngine]:
    """An engine with one worker's session."""
    engine = RedisEngine(url)
    await engine.open()
    try:
        await engine.announce(WORKER)
        yield engine
    finally:
        await engine.shut()


async def submitted(engine: Engine, job_id: str) -> Receipt:
    """Submit until it is acknowledged, as a client does."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return as_(Receipt, (await engine.submit([a_job(job_id)]))[0])
        except EngineUnavailable:
            assert time.monotonic() < deadline_s, "the engine never came back"
            await asyncio.sleep(0.02)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(until, condition, what, PATIENCE_S)


def leases(limit: int = 1) -> LeaseRequest:
    return LeaseRequest(SESSION, "worker", (QUEUE,), limit)


# -- a cluster


async def test_a_spread_store_lies_on_every_node() -> None:
    """Each node of the cluster holds jobs, and a list of them has each once, though three servers number them."""
    harness = SpreadHarness()
    engine = await harness.start(ManualClock(), seeded_random(1))
    ids = {f"job_{n:02}" for n in range(30)}
    await engine.submit([a_job(job_id) for job_id in sorted(ids)])
    holding = [node for node in shared_cluster().nodes if ":job:job_" in " ".join(node.do("KEYS", "*"))]
    assert holding == shared_cluster().nodes
    listed: list[str] = []
    page = await engine.find(JobQuery(TENANT, limit=7))
    while page.next_cursor is not None:
        listed += [job.id for job in page.jobs]
        page = await engine.find(JobQuery(TENANT, limit=7, before=page.next_cursor))
    listed += [job.id for job in page.jobs]
    assert sorted(listed) == sorted(ids)
    await harness.stop(engine)


async def test_a_partition_that_moves_to_another_node_is_followed() -> None:
    """An operator moves the slot while jobs wait and run: who works and who only listens go on, on the other node."""
    cluster = shared_cluster()
    slot = slot_of("0")
    home = next(node for node in cluster.nodes if _holds(node.port, cluster, slot))
    other = next(node for node in cluster.nodes if node is not home)
    url = f"{cluster.url}?prefix=moving{next(_prefixes)}"
    async with opened(url) as engine, opened(url) as listening:
        await engine.submit([a_job("job_1"), a_job("job_2")])
        (held,) = await engine.lease(leases())
        with listening.listen("job:job_2") as hints:
            await listening.stats()
            _move(cluster, slot, home.port, other.port)
            assert await engine.commit([Commit(held.lease, DONE)]) == [State.succeeded]
            (second,) = await engine.lease(leases())
            assert second.job_id == "job_2"
            assert await hints.wait(PATIENCE_S) == {"job:job_2"}
        assert await engine.commit([Commit(second.lease, DONE)]) == [State.succeeded]
    _move(cluster, slot, other.port, home.port)


async def test_a_node_that_falls_takes_its_own_partition_alone() -> None:
    """While one node is down the jobs of the others are served; when it is back, its own are all there."""
    cluster = shared_cluster()
    async with opened(f"{cluster.url}?partitions=3&prefix=falling") as engine:
        ids = [f"job_{n:02}" for n in range(12)]
        await engine.submit([a_job(job_id) for job_id in ids])
        there = " ".join(cluster.nodes[0].do("KEYS", "*:job:*"))
        lost = [job_id for job_id in ids if job_id in there]
        served = [job_id for job_id in ids if job_id not in lost]
        assert lost
        assert None not in await engine.get(TENANT, served)
        cluster.nodes[0].kill()
        assert None not in await engine.get(TENANT, served)
        with pytest.raises(EngineUnavailable):
            await engine.get(TENANT, lost)
        cluster.nodes[0].start()
        for job_id in ids:
            assert (await submitted(engine, job_id)).replayed
        assert len(await engine.lease(leases(100))) == len(ids)
    cluster.until_whole()


def _holds(port: int, cluster: Cluster, slot: int) -> bool:
    slots = cluster.nodes[0].do("CLUSTER", "SLOTS")
    return any(first <= slot <= last and owner[1] == port for first, last, owner, *_ in slots)


def _move(cluster: Cluster, slot: int, old_port: int, new_port: int) -> None:
    """As an operator's tool does it: key by key, while both nodes serve."""
    by_port = {node.port: node for node in cluster.nodes}
    old, new = by_port[old_port], by_port[new_port]
    old_id, new_id = old.do("CLUSTER", "MYID"), new.do("CLUSTER", "MYID")
    new.do("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
    old.do("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
    while keys := old.do("CLUSTER", "GETKEYSINSLOT", slot, 100):
        old.do("MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "KEYS", *keys)
    for node in (new, old, *(node for node in cluster.nodes if node not in (old, new))):
        node.do("CLUSTER", "SETSLOT", slot, "NODE", new_id)


# -- sentinels


@pytest.fixture
def watched() -> Iterator[Watched]:
    servers = Watched().start()
    yield servers
    servers.delete()


async def test_acknowledged_jobs_outlive_a_failover(watched: Watched) -> None:
    """With `wait_replicas=1`, the master killed while jobs come: the engine goes on by itself on what was a replica,
    every acknowledged job is there and ends once, and a lease from before commits.
    """
    async with opened(f"{watched.url}?wait_replicas=1&wait_timeout_s=5") as engine:
        acknowledged: list[str] = []
        enough = asyncio.Event()

        async def submit_on() -> None:
            for n in itertools.count():
                if enough.is_set():
                    return
                await submitted(engine, f"job_{n:04}")
                acknowledged.append(f"job_{n:04}")

        await engine.submit([a_job("ended"), a_job("running")])
        ended, running = await engine.lease(leases(2))
        assert await engine.commit([Commit(ended.lease, DONE)]) == [State.succeeded]
        client = asyncio.create_task(submit_on())  # what it waits for was written after all of the above
        await eventually(lambda: len(acknowledged) >= 20, "jobs were submitted before the failover")
        await asyncio.to_thread(watched.fail_over)
        await asyncio.to_thread(watched.bring_back)
        before = len(acknowledged)
        await eventually(lambda: len(acknowledged) >= before + 20, "jobs were submitted after the failover")
        enough.set()
        await client

        assert None not in await engine.get(TENANT, acknowledged)
        commits = [Commit(ended.lease, DONE), Commit(running.lease, DONE)]
        assert await engine.commit(commits) == [State.succeeded, State.succeeded]
        found = await engine.lease(leases(10_000))
        assert sorted(held.job_id for held in found) == acknowledged
        assert set(await engine.commit([Commit(held.lease, DONE) for held in found])) == {State.succeeded}
        for job_id in ("ended", "running", acknowledged[-1]):
            page = await engine.read(TENANT, job_id, START, 100)
            assert page is not None
            assert [event.type for event in page.events].count(SUCCEEDED) == 1
        assert engine.info.warnings == ()


async def test_what_no_replica_has_is_not_acknowledged(watched: Watched) -> None:
    """While the replica hangs a submit that waits for it has an unknown outcome; its repeat is answered as a replay."""
    watched.sentinels[0].kill()  # the first that the URL names
    async with opened(f"{watched.url}?wait_replicas=1&wait_timeout_s=0.1") as engine:
        watched.replica.signal(signal.SIGSTOP)
        with pytest.raises(OutcomeUnknown, match="0 of 1 replicas"):
            await engine.submit([a_job("job_1")])
        watched.replica.signal(signal.SIGCONT)
        assert (await submitted(engine, "job_1")).replayed


async def test_a_failover_that_loses_writes_is_told_and_fenced(watched: Watched) -> None:
    """What the replica never had is gone, and `warnings` says so; a lease that was lost with it commits no more, and
    the job that it was for runs again.
    """
    async with opened(watched.url) as engine:
        await engine.submit([a_job("job_1")])
        await eventually(lambda: follows(watched.replica, watched.master), "the replica has the job")
        watched.replica.do("REPLICAOF", "127.0.0.1", free_port())  # cut off, with what it has
        await engine.submit([a_job("lost")])
        first, _ = await engine.lease(leases(2))
        await asyncio.to_thread(watched.fail_over)
        await submitted(engine, "job_2")
        assert any("acked_data_may_be_lost" in warning for warning in engine.info.warnings)
        assert await engine.get(TENANT, ["lost"]) == [None]
        assert [type(answer) for answer in await engine.commit([Commit(first.lease, DONE)])] == [LeaseLost]
        await engine.announce(WORKER)  # its session has ended: nobody knows what it held
        again, _ = await engine.lease(leases(2))
        assert (again.job_id, again.lease.epoch > first.lease.epoch) == ("job_1", True)
        assert await engine.commit([Commit(again.lease, DONE)]) == [State.succeeded]

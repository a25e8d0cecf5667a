"""What the tests of the link share: two engines on one store, one of them over a line that can be broken."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
from proxy import FaultProxy

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.job import DEFAULT_TENANT, Job, NewJob, Receipt
from ropeway.domain.lease import Assignment, Commit, LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.worker import WorkerCard
from ropeway.engines.redis import RedisEngine, hearing, partition
from servers import Server, shared_server

__all__ = [
    "PATIENCE_S",
    "SESSION",
    "TIMEOUT_S",
    "Store",
    "Wire",
    "a_job",
    "asks_until_answered",
    "eventually",
    "quick",
    "wire",
]

PATIENCE_S = 20.0  # how long a condition may take on a loaded machine before the test fails
TIMEOUT_S = 0.4  # for one reply: what is silent for longer is half open
SESSION = "ses_1"

_prefixes = itertools.count(1)


@pytest.fixture(name="quick")
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that waits for seconds waits for tenths of them."""
    monkeypatch.setattr(partition, "PATIENCE_S", 0.4)
    monkeypatch.setattr(partition, "RESOLVE_S", 0.8)
    monkeypatch.setattr(hearing, "LOOK_S", 0.1)
    monkeypatch.setattr(hearing, "RETRY_S", 0.05)


class Store:
    """An engine, and short ways to use it."""

    def __init__(self, engine: RedisEngine) -> None:
        self.engine = engine

    @property
    def connects(self) -> int:
        """How many links its first partition has had."""
        return self.engine._fleet.homes[0].route.connects

    @property
    def is_linked(self) -> bool:
        """Whether its first partition's link is open."""
        link = self.engine._fleet.homes[0].route.current
        return link is not None and link.is_open

    async def submit(self, job_id: str, queue: str = "q") -> Job:
        (receipt,) = await self.engine.submit([a_job(job_id, queue)])
        assert isinstance(receipt, Receipt), receipt
        return receipt.job

    async def job(self, job_id: str) -> Job:
        job = await self.find(job_id)
        assert job is not None
        return job

    async def find(self, job_id: str) -> Job | None:
        return (await self.engine.get(DEFAULT_TENANT, [job_id]))[0]

    async def announce(self, session: str = SESSION, ttl_ms: int = 60_000) -> None:
        await self.engine.announce(WorkerCard(session, session, ("q",), ttl_ms=ttl_ms))

    async def lease(self, limit: int = 1, session: str = SESSION, queue: str = "q") -> list[Assignment]:
        return await self.engine.lease(LeaseRequest(session, "w", (queue,), limit))

    async def start(self, job_id: str) -> Assignment:
        """Submit a job and lease it, under a session that is opened for it."""
        await self.announce()
        await self.submit(job_id)
        (assignment,) = await self.lease()
        return assignment

    async def succeed(self, assignment: Assignment) -> State | Exception:
        return (await self.engine.commit([Commit(assignment.lease, Outcome("succeeded", output="1"))]))[0]


class Wire(msgspec.Struct):
    """`far` is an engine behind the proxy, `near` one on the same store beside it."""

    proxy: FaultProxy
    far: Store
    near: Store


@asynccontextmanager
async def wire(server: Server | None = None, *, timeout_s: float = TIMEOUT_S, options: str = "") -> AsyncIterator[Wire]:
    """The two, on an empty store."""
    server = server or shared_server()
    query = f"prefix=l{next(_prefixes)}{options}"
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(server.port))
        near = await _opened(stack, f"{server.url}?{query}&timeout_s=10")
        far = await _opened(stack, f"redis://127.0.0.1:{proxy.port}?{query}&timeout_s={timeout_s}")
        yield Wire(proxy, far, near)
        proxy.heal()


async def _opened(stack: AsyncExitStack, url: str) -> Store:
    engine = RedisEngine(url)
    await engine.open()
    stack.push_async_callback(engine.shut)
    return Store(engine)


def a_job(job_id: str, queue: str = "q", text: str = "1") -> NewJob:
    return NewJob(job_id, DEFAULT_TENANT, queue, "echo", text)


async def eventually(condition: Callable[[], bool | Awaitable[bool]], name: str) -> None:
    """Wait until the condition holds."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline_s, f"waited in vain until {name}"
        await asyncio.sleep(0.005)


async def asks_until_answered(ask: Callable[[], Awaitable[object]]) -> object:
    """As a caller does that has patience: again, until the engine answers."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await ask()
            except EngineUnavailable:
                await asyncio.sleep(0.01)

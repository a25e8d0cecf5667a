"""What the private tests of the SQLite engine share."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw

from ropeway.domain.clock import Clock
from ropeway.domain.job import Job, NewJob, Receipt
from ropeway.domain.lease import Assignment, LeaseRequest
from ropeway.domain.worker import WorkerCard
from ropeway.engines.base import Engine
from ropeway.engines.sqlite import SqliteEngine, SqliteOptions

__all__ = [
    "PATIENCE_S",
    "QUEUE",
    "SESSION",
    "TENANT",
    "Transactions",
    "add",
    "announce",
    "as_",
    "child",
    "lease",
    "look",
    "new",
    "opened",
    "until",
]

TENANT = "default"
QUEUE = "chat"
SESSION = "s1"
PATIENCE_S = 30.0  # how long a named condition may take on a machine under load

T = TypeVar("T")


def as_(kind: type[T], value: object) -> T:
    """`value`, which must be of this kind."""
    assert isinstance(value, kind), f"expected {kind.__name__}, got {value!r}"
    return value


def new(number: int | str, **fields: Any) -> NewJob:
    """A job to submit."""
    return NewJob(f"job_{number}", **{"tenant": TENANT, "queue": QUEUE, "task": "echo", "input": "{}", **fields})


async def add(engine: Engine, number: int | str, **fields: Any) -> Job:
    """Submit one job, which must be accepted."""
    return as_(Receipt, (await engine.submit([new(number, **fields)]))[0]).job


async def announce(engine: Engine, session: str = SESSION, ttl_ms: int = 60_000) -> None:
    await engine.announce(WorkerCard(session, "worker", (QUEUE,), ttl_ms=ttl_ms))


async def lease(engine: Engine, limit: int = 1, session: str = SESSION) -> list[Assignment]:
    return await engine.lease(LeaseRequest(session, "worker", (QUEUE,), limit))


@asynccontextmanager
async def opened(
    path: Path, options: SqliteOptions | None = None, clock: Clock | None = None
) -> AsyncIterator[SqliteEngine]:
    """An engine on this file, open."""
    engine = SqliteEngine(path, clock, options=options)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.shut()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition of another process or thread, that nothing else can tell of."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (a file's size or a thread's state has no event)
            await asyncio.sleep(0.005)


class Transactions:
    """A failpoint that counts transactions, and can be told to raise."""

    def __init__(self) -> None:
        self.points: Counter[str] = Counter()
        self.raises: dict[str, Exception] = {}

    def __call__(self, point: str) -> None:
        self.points[point] += 1
        error = self.raises.pop(point, None)
        if error is not None:
            raise error

    @property
    def count(self) -> int:
        return self.points["post_commit"]


@contextmanager
def look(path: Path) -> Iterator[apsw.Connection]:
    """A connection of the test's own."""
    connection = apsw.Connection(str(path))
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def child(program: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """Another Python process, with pipes; killed at the end if it is still there."""
    command = [sys.executable, "-c", program, *map(str, args)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()

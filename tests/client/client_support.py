"""What the client's tests share: a stage for every transport, a task object, and a worker that is moved by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from asgi_wire import AsgiWire

from ropeway.client import Client
from ropeway.domain.errors import JobError
from ropeway.domain.lease import Append, Appended, Assignment, Commit, LeaseRequest, Outcome
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import Engine
from ropeway.engines.connect import connect
from ropeway.serving import Gateway

__all__ = ["GREET", "TRANSPORTS", "Greeting", "Hand", "Stage", "stage"]

TRANSPORTS = ["memory", "sqlite", "http on memory", "http on sqlite"]

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "times": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}


@dataclass
class Greeting:
    """What the task `greet` returns, as its own type."""

    text: str


class Greet:
    """A task object as the registry makes them, written by hand."""

    name = "greet"
    card = TaskCard("greet", queue="hall", input_schema=msgspec.json.encode(SCHEMA).decode())

    def bind(self, name: str, times: int = 1) -> str:
        return msgspec.json.encode({"name": name, "times": times}).decode()

    def decode_output(self, output: str) -> Greeting:
        return msgspec.json.decode(output, type=Greeting)


GREET = Greet()


class Hand:
    """A worker whose every step the test takes itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next_seq: dict[str, int] = {}

    async def announce(self) -> None:
        await self._engine.publish([GREET.card])
        await self._engine.announce(WorkerCard("s1", "hand", ("hall", "other"), ttl_ms=600_000))

    async def take(self) -> Assignment:
        """Lease the next job; there must be one."""
        (assignment,) = await self._engine.lease(LeaseRequest("s1", "hand", ("hall", "other"), 1))
        self._next_seq[assignment.job_id] = assignment.next_seq
        return assignment

    async def emit(self, assignment: Assignment, *drafts: tuple[str, Any]) -> None:
        texts = tuple((type_, msgspec.json.encode(data).decode()) for type_, data in drafts)
        append = Append(assignment.lease, self._next_seq[assignment.job_id], texts)
        (appended,) = await self._engine.append([append])
        assert isinstance(appended, Appended)
        self._next_seq[assignment.job_id] = appended.next_seq

    async def succeed(self, assignment: Assignment, output: Any) -> None:
        await self._end(assignment, Outcome("succeeded", output=msgspec.json.encode(output).decode()))

    async def fail(self, assignment: Assignment, message: str) -> None:
        error = JobError("task_error", message, attempt=assignment.attempt)
        await self._end(assignment, Outcome("failed", error=msgspec.json.encode(error).decode()))

    async def give_back(self, assignment: Assignment, delay_s: float) -> None:
        """Snooze: the job runs again after so long."""
        await self._end(assignment, Outcome("snooze", delay_ms=round(delay_s * 1000)))

    async def yield_to_cancel(self, assignment: Assignment) -> None:
        await self._end(assignment, Outcome("cancelled"))

    async def _end(self, assignment: Assignment, outcome: Outcome) -> None:
        await self._engine.commit([Commit(assignment.lease, outcome)])


class Stage(NamedTuple):
    """A client, and the engine at the far end of its transport with a worker in hand."""

    client: Client
    hand: Hand
    engine: Engine


@asynccontextmanager
async def stage(transport: str, folder: Path) -> AsyncIterator[Stage]:
    """A stage for this transport; everything opened is closed after."""
    async with _open_engine(transport, folder) as engine:
        hand = Hand(engine)
        await hand.announce()
        async with _client(transport, engine) as client:
            yield Stage(client, hand, engine)


@asynccontextmanager
async def _open_engine(transport: str, folder: Path) -> AsyncIterator[Engine]:
    engine = connect("memory:" if transport.endswith("memory") else f"sqlite:{folder / 'jobs.db'}")
    await engine.open()
    try:
        yield engine
    finally:
        await engine.shut()


@asynccontextmanager
async def _client(transport: str, engine: Engine) -> AsyncIterator[Client]:
    if not transport.startswith("http"):
        async with Client(engine) as client:
            yield client
        return
    gateway = Gateway(engine)
    await gateway.start()
    async with Client("http://localhost", wire=AsgiWire(gateway)) as client:
        yield client
    await gateway.stop()

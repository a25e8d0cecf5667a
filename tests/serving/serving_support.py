"""What the gateway's tests share: a stage with a gateway and a worker moved by hand, and a client that can stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from ropeway.domain.errors import JobError
from ropeway.domain.lease import Append, Appended, Assignment, Commit, LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import Engine
from ropeway.engines.connect import connect
from ropeway.engines.memory import MemoryEngine
from ropeway.serving import Gateway, GatewayOptions

__all__ = [
    "ENGINES",
    "FREE",
    "GREET",
    "QUICK",
    "Block",
    "Call",
    "Hand",
    "Stage",
    "blocks_of",
    "stage",
    "turn",
    "until",
    "until_dropped",
]

ENGINES = ["memory", "sqlite"]

QUICK = GatewayOptions(allowed_hosts=("gateway.test",))

GREET = TaskCard(
    "greet",
    queue="hall",
    input_schema=msgspec.json.encode(
        {
            "type": "object",
            "properties": {"name": {"type": "string"}, "times": {"type": "integer"}},
            "required": ["name"],
            "additionalProperties": False,
        }
    ).decode(),
    doc="Says hello.",
)
FREE = TaskCard("free", queue="hall", doc="Takes anything.")


class Hand:
    """A worker whose every step the test takes itself."""

    def __init__(self, engine: Engine, session: str = "s1") -> None:
        self._engine = engine
        self._session = session
        self._next_seq: dict[str, int] = {}

    async def announce(self, *tasks: TaskCard) -> None:
        await self._engine.publish(tasks or (GREET, FREE))
        await self._engine.announce(
            WorkerCard(self._session, "hand", ("hall", "other"), tasks=("greet", "free"), slots=10, ttl_ms=600_000)
        )

    async def take(self) -> Assignment:
        """Lease the next job; there must be one."""
        (assignment,) = await self._engine.lease(LeaseRequest(self._session, "hand", ("hall", "other"), 1))
        self._next_seq[assignment.job_id] = assignment.next_seq
        return assignment

    async def emit(self, assignment: Assignment, *drafts: tuple[str, Any]) -> None:
        texts = tuple((type_, msgspec.json.encode(data).decode()) for type_, data in drafts)
        await self.emit_text(assignment, *texts)

    async def emit_text(self, assignment: Assignment, *drafts: tuple[str, str]) -> None:
        """The same with data as JSON text, however it is written."""
        append = Append(assignment.lease, self._next_seq[assignment.job_id], drafts)
        (appended,) = await self._engine.append([append])
        assert isinstance(appended, Appended)
        self._next_seq[assignment.job_id] = appended.next_seq

    async def succeed(self, assignment: Assignment, output: Any) -> None:
        await self.end(assignment, Outcome("succeeded", output=msgspec.json.encode(output).decode()))

    async def fail(self, assignment: Assignment, message: str) -> None:
        error = JobError("task_error", message, attempt=assignment.attempt)
        await self.end(assignment, Outcome("failed", error=msgspec.json.encode(error).decode()))

    async def end(self, assignment: Assignment, outcome: Outcome) -> None:
        (state,) = await self._engine.commit([Commit(assignment.lease, outcome)])
        assert isinstance(state, State), state


@dataclass
class Stage:
    """A gateway on an engine, a client of it, and a worker in hand."""

    engine: Engine
    gateway: Gateway
    http: httpx.AsyncClient
    hand: Hand

    async def submit(self, task: str = "free", input: Any = None, **fields: Any) -> str:  # noqa: A002 - the field's name
        """The id of a new job."""
        answer = await self.http.post("/v1/jobs", json={"task": task, "input": input, **fields})
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    @property
    def waiting(self) -> int:
        """Requests that wait for something to happen."""
        return self.gateway.waiting

    def call(self, method: str, path: str, **arguments: Any) -> Call:
        return Call(self.gateway, method, path, **arguments)

    async def job(self, job_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/v1/jobs/{job_id}")
        body: dict[str, Any] = answer.json()
        return body


@asynccontextmanager
async def stage(
    engine: str = "memory",
    folder: Path | None = None,
    options: GatewayOptions = QUICK,
    wrap: Callable[[Engine], Engine] = lambda engine: engine,
    **arguments: Any,
) -> AsyncIterator[Stage]:
    """A stage on this engine; everything opened is closed after. `wrap` may put something between."""
    opened = MemoryEngine() if engine == "memory" else connect(f"sqlite:///{folder}/jobs.db")
    await opened.open()
    seen = wrap(opened)
    gateway = Gateway(seen, options, **arguments)
    hand = Hand(opened)
    await hand.announce()
    transport = httpx.ASGITransport(gateway, raise_app_exceptions=True)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
            yield Stage(opened, gateway, http, hand)
    finally:
        await gateway.stop()
        await opened.shut()


@dataclass
class Block:
    """One event as a browser would dispatch it."""

    event: str = "message"
    data: Any = None
    id: str | None = None
    retry: int | None = None


@dataclass
class Call:
    """One request whose answer is read as it comes; the ASGI server's side of it, in the test's hands.

    `async with` it: at the end the client leaves. `stuck` makes every write wait, as a reader that takes nothing does.
    """

    app: Any
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    query: str = ""
    root_path: str = ""

    def __post_init__(self) -> None:
        self.status = 0
        self.answer_headers: dict[str, str] = {}
        self.received = b""
        self.ended = False
        self.writes = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._left = asyncio.Event()
        self._news = asyncio.Event()
        self._sent_body = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Call:
        headers = {"host": "gateway.test", **{name.lower(): value for name, value in self.headers.items()}}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query.encode(),
            "root_path": self.root_path,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        self._task = asyncio.create_task(self.app(scope, self._receive, self._send))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        self.flowing.set()
        await self.done()

    def leave(self) -> None:
        """The client closes its connection."""
        self._left.set()

    async def done(self) -> None:
        """Until the application has nothing more to say. Raises what it raised."""
        assert self._task is not None
        async with asyncio.timeout(10):
            await self._task

    async def until(self, enough: Callable[[bytes], bool]) -> bytes:
        """What came, as soon as it is `enough`, or all of it when the answer ended."""
        async with asyncio.timeout(10):
            while not (enough(self.received) or self.ended):
                self._news.clear()
                await self._news.wait()
        return self.received

    async def blocks(self, count: int) -> list[Block]:
        """The first `count` whole events, or all when the stream ended."""
        await self.until(lambda data: len(blocks_of(data)) >= count)
        return blocks_of(self.received)

    async def all_blocks(self) -> list[Block]:
        await self.until(lambda _: False)
        return blocks_of(self.received)

    async def _receive(self) -> dict[str, Any]:
        if not self._sent_body:
            self._sent_body = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not self.status, "the answer began twice"
            self.status = message["status"]
            self.answer_headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        self.writes += 1
        await self.flowing.wait()
        self.received += message.get("body", b"")
        self.ended = not message.get("more_body", False)
        self._news.set()


def blocks_of(data: bytes) -> list[Block]:
    """The events that a WHATWG parser dispatches. Fails on a block that would dispatch an empty one."""
    return [_block(text) for text in data.decode().split("\n\n")[:-1]]


def _block(text: str) -> Block:
    block, has_data = Block(), False
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            block.data, has_data = msgspec.json.decode(value), True
        elif name == "event":
            block.event = value
        elif name == "id":
            block.id = value
        elif name == "retry":
            block.retry = int(value)
        else:
            assert name == "", f"not a field of an event stream: {line!r}"
    assert has_data, f"a block without data: {text!r}"
    return block


async def turn() -> None:
    """Let everything else that is ready run once."""
    await asyncio.sleep(0)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until this holds."""
    async with asyncio.timeout(10):
        while not holds():
            await turn()


async def until_dropped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, food: bytes = b"x") -> None:
    """Feed a connection a little at a time until the server drops it."""
    try:
        async with asyncio.timeout(60):
            while not reader.at_eof():
                writer.write(food)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await reader.read(100)
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()

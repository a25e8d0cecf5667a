"""What the webhooks' tests share: an endpoint that answers as told, a listener nobody may reach, and a sender."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.targets import AllowList
from ropeway.engines.memory import MemoryEngine
from ropeway.operations.webhooks import Endpoints, Secrets, Sender
from ropeway.operations.webhooks.posting import Poster
from ropeway.operations.webhooks.resolving import Resolve, resolver
from ropeway.operations.webhooks.sender import Message
from ropeway.testing import seeded_random

__all__ = [
    "OK",
    "PATIENCE_S",
    "Endpoint",
    "Got",
    "a_message",
    "a_sender",
    "endpoint",
    "names",
    "opened_engine",
    "until",
]

PATIENCE_S = 20.0  # how long a condition may take on a loaded machine before the test fails
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass
class Got:
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: str


@dataclass
class Endpoint:
    """What an endpoint was sent. `answers` are given one after the other, the last one for ever after."""

    port: int = 0
    answers: list[bytes] = field(default_factory=lambda: [OK])
    got: list[Got] = field(default_factory=list)
    connections: int = 0
    hold: asyncio.Event | None = None  # answers wait for it, where it is given

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?x=1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in fields)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.got.append(Got(line, headers, body.decode()))
            if self.hold is not None:
                await self.hold.wait()
            writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def endpoint(
    *answers: bytes,
    hold: asyncio.Event | None = None,
    context: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Endpoint]:
    """An endpoint on loopback."""
    made = Endpoint(answers=list(answers) or [OK], hold=hold)
    server = await asyncio.start_server(made.serve, host, 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        if hold is not None:
            hold.set()
        server.close()


async def until(condition: Callable[[], bool]) -> None:
    """Until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - it may be about anything
            await asyncio.sleep(0.005)


@asynccontextmanager
async def opened_engine(clock: Clock | None = None) -> AsyncIterator[MemoryEngine]:
    engine = MemoryEngine(clock or SystemClock())
    await engine.open()
    yield engine
    await engine.shut()


def names(*answers: Sequence[str]) -> Resolve:
    """A name server that answers so, one after the other, the last one for ever after; `asked` counts."""
    left = [list(answer) for answer in answers]

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def a_sender(
    engine: MemoryEngine,
    *allowed: str,
    resolve: Resolve | None = None,
    context: ssl.SSLContext | None = None,
    timeout_s: float = 10.0,
    clock: Clock | None = None,
) -> Sender:
    """A sender on this engine's records."""
    clock = clock or SystemClock()
    allow_list = AllowList(allowed)
    poster = Poster(allow_list, resolve or resolver(), context, timeout_s)
    secrets, endpoints = Secrets(engine, clock, seeded_random("secrets")), Endpoints(engine, clock)
    return Sender(poster, secrets, endpoints, allow_list, clock)


def a_message(url: str, **fields: Any) -> Message:
    given: dict[str, Any] = {
        "tenant": "acme",
        "url": url,
        "type": "job.succeeded",
        "job_id": "job_0001",
        "timestamp": "2026-01-31T00:00:00.000Z",
        "data": {"id": "job_0001", "output": "grüße 🚠"},
        **fields,
    }
    return Message(**given)

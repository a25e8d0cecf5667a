"""A scripted provider on a real socket, and an upstream on it whose time stands in the test's hands."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, NoReturn

import msgspec

from ropeway import ChatDelta, ChatRequest
from ropeway.models.calling import Seams, Upstream
from ropeway.models.keys import Secret
from ropeway.models.options import UpstreamOptions
from ropeway.testing import ManualClock

__all__ = [
    "DONE",
    "KEY",
    "PATIENCE_S",
    "Call",
    "Exchange",
    "Provider",
    "Script",
    "TheJob",
    "Throttled",
    "Time",
    "ask",
    "asked",
    "chunk",
    "provider",
    "refuses",
    "says",
    "until",
    "upstream",
]

PATIENCE_S = 20.0
KEY = "sk-very-secret-0123456789"
DONE = b"data: [DONE]\n\n"


class Call(NamedTuple):
    """A request as the provider got it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Exchange:
    """One request and its answer, in a script's hands."""

    def __init__(
        self, call: Call, heard: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.call = call
        self.heard = heard
        self._reader = reader
        self._writer = writer

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        """The head of an answer that ends with its connection."""
        fields = {"content-type": kind, "connection": "close", **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        await self.raw(f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode())

    async def left(self) -> None:
        """Until the client has hung up."""
        while await self._reader.read(4096):
            pass


Script = Callable[[Exchange], Awaitable[None]]


class Provider:
    """An API that does as it is scripted: the n-th script for the n-th call, the last one for all after it.

    `heard` is set by a test when it has what a script waits for it to have.
    """

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.calls: list[Call] = []
        self.in_flight = self.peak = 0
        self.url = ""
        self.heard = asyncio.Event()
        self._handling: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling = asyncio.create_task(self._handle(reader, writer))
        self._handling.add(handling)
        handling.add_done_callback(self._handling.discard)

    async def stop(self) -> None:
        for handling in self._handling:
            handling.cancel()
        await asyncio.gather(*self._handling, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            call = await _read(reader)
            self.calls.append(call)
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            script = self.scripts[min(len(self.calls), len(self.scripts)) - 1]
            try:
                await script(Exchange(call, self.heard, reader, writer))
            finally:
                self.in_flight -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def provider(*scripts: Script) -> AsyncIterator[Provider]:
    """The provider, listening."""
    made = Provider(*scripts)
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield made
    finally:
        server.close()
        await made.stop()


async def _read(reader: asyncio.StreamReader) -> Call:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Call(first.split()[1], headers, json.loads(body or b"{}"))


# -- scripts


def chunk(content: str | None = None, finish: str | None = None, **delta: Any) -> bytes:
    """One event of a chat stream."""
    fields = {**({} if content is None else {"content": content}), **delta}
    return (
        b"data: " + msgspec.json.encode({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}) + b"\n\n"
    )


def says(*words: str, usage: dict[str, Any] | None = None, finish: str = "stop") -> Script:
    """An answer as it should be."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for word in words:
            await exchange.raw(chunk(word))
        await exchange.raw(chunk(finish=finish))
        if usage is not None:
            await exchange.raw(b"data: " + msgspec.json.encode({"choices": [], "usage": usage}) + b"\n\n")
        await exchange.raw(DONE)

    return script


def refuses(status: int, message: str = "no", *, body: bytes | None = None, code: str = "", **headers: str) -> Script:
    """A refusal with OpenAI's error object, or with a body of one's own."""
    told = msgspec.json.encode({"error": {"message": message, "type": "", "code": code}}) if body is None else body

    async def script(exchange: Exchange) -> None:
        await exchange.head(status, "application/json", **headers)
        await exchange.raw(told)

    return script


# -- this side


class Time:
    """A clock that only sleeping moves, and what was slept."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(s=seconds)
        await asyncio.sleep(0)


class Throttled(BaseException):
    """The attempt ended, for the provider takes nothing for so many seconds."""


class TheJob:
    """The job that a call is made for."""

    def __init__(self, timeout: float | None = None) -> None:
        self.job_id = "job_1"
        self.timeout = timeout
        self.used: dict[str, Any] = {}
        self.told: list[tuple[str | None, float | None, float]] = []

    def limit_told(self, limit: str | None = None, *, left: float | None = None, pause_s: float = 0.0) -> None:
        self.told.append((limit, left, pause_s))

    def throttled(self, after_s: float) -> NoReturn:
        raise Throttled(after_s)

    def usage(self, **amounts: Any) -> None:
        self.used.update(amounts)


def upstream(
    on: Provider,
    time: Time | None = None,
    *,
    jitter: float = 0.0,
    key: str = KEY,
    budget: str | None = None,
    **options: Any,
) -> Upstream:
    time = time or Time()
    seams = Seams(time.clock, time.sleep, lambda: jitter)
    return Upstream(on.url, {"small": "vendor/small-1"}, Secret(key), UpstreamOptions(**options), seams, budget)


def asked(text: str = "hello", **fields: Any) -> ChatRequest:
    return ChatRequest(model="small", messages=[{"role": "user", "content": text}], **fields)


async def ask(up: Upstream, request: ChatRequest | None = None, job: TheJob | None = None) -> list[str | ChatDelta]:
    """The whole answer, in its pieces."""
    return [piece async for piece in up.chat(request or asked(), job or TheJob())]


async def until(condition: Callable[[], bool], name: str) -> None:
    """Wait until the condition holds, for what no event tells."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain until {name}"
        await asyncio.sleep(0.001)

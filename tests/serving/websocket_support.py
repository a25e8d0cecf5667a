"""What the tests of the WebSocket share: a real client on a real server, and the words of `ropeway.v1`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
from serving_support import Hand
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ropeway.engines.base import Engine
from ropeway.engines.connect import connect as connect_engine
from ropeway.engines.memory import MemoryEngine
from ropeway.serving import Gateway, GatewayOptions
from ropeway.serving.server import Server, ServerOptions

__all__ = ["SUBPROTOCOL", "Socket", "Theatre", "theatre"]

SUBPROTOCOL: Any = "ropeway.v1"
HEAR_S = 10.0


class Socket:
    """A client on one socket. `hear` gives the next message that is not a pong, within seconds."""

    def __init__(self, wire: ClientConnection) -> None:
        self.wire = wire
        self._refs = itertools.count(1)

    async def say(self, type_: str, **members: Any) -> int:
        """Send a message; its ref."""
        ref = next(self._refs)
        await self.wire.send(msgspec.json.encode({"type": type_, "ref": ref, **members}).decode())
        return ref

    async def say_text(self, text: str | bytes) -> None:
        await self.wire.send(text)

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(HEAR_S):
            message: dict[str, Any] = msgspec.json.decode(await self.wire.recv())
        return message

    async def ask(self, type_: str, **members: Any) -> dict[str, Any]:
        """Say it, and hear the answer: the next message, which must be to this."""
        ref = await self.say(type_, **members)
        answer = await self.hear()
        assert answer["ref"] == ref, answer
        return answer

    async def refused(self, type_: str, **members: Any) -> str:
        """The code of the problem that this is answered with."""
        answer = await self.ask(type_, **members)
        assert answer["type"] == "error", answer
        code: str = answer["problem"]["code"]
        return code

    async def submit(self, task: str = "free", **members: Any) -> str:
        """The id of a new job, whose events follow."""
        answer = await self.ask("submit", job={"task": task, **members.pop("job", {})}, **members)
        assert answer["type"] == "ack", answer
        job_id: str = answer["job"]["id"]
        return job_id

    async def events(self, count: int) -> list[dict[str, Any]]:
        """The next messages, all of which must be events."""
        heard = [await self.hear() for _ in range(count)]
        assert [message["type"] for message in heard] == ["event"] * count, heard
        return [message["event"] for message in heard]

    async def events_to_the_end(self) -> list[dict[str, Any]]:
        """The events up to the one that ends its job."""
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] not in ("job.succeeded", "job.failed", "job.cancelled"):
            events += await self.events(1)
        return events

    async def hears_nothing(self) -> bool:
        """Whether nothing came before the answer to a question that is asked now."""
        ref = await self.say("ping")
        return await self.hear() == {"type": "pong", "ref": ref}

    async def closed(self) -> int | None:
        """The code that the other side closes with; what it says before is not looked at."""
        async with asyncio.timeout(HEAR_S):
            try:
                while True:
                    await self.wire.recv()
            except ConnectionClosed as closed:
                return None if closed.rcvd is None else closed.rcvd.code


@dataclass
class Theatre:
    """A gateway behind its real server, a worker in hand, and as many sockets as a test opens."""

    engine: Engine
    gateway: Gateway
    server: Server
    hand: Hand

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}/v1/ws"

    @asynccontextmanager
    async def socket(self, *subprotocols: str, **arguments: Any) -> AsyncIterator[Socket]:
        protocols: Any = [SUBPROTOCOL, *subprotocols]
        async with connect(self.url, subprotocols=protocols, **arguments) as wire:
            yield Socket(wire)

    @asynccontextmanager
    async def http(self, **arguments: Any) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=self.server.url, **arguments) as http:
            yield http


@asynccontextmanager
async def theatre(
    engine: str | Engine = "memory",
    folder: Path | None = None,
    options: GatewayOptions | None = None,
    server: ServerOptions | None = None,
    **arguments: Any,
) -> AsyncIterator[Theatre]:
    """A theatre on this engine (an open one stays its owner's); everything opened is closed after."""
    opened = engine if not isinstance(engine, str) else _engine(engine, folder)
    if isinstance(engine, str):
        await opened.open()
    try:
        hand = Hand(opened)
        await hand.announce()
        gateway = Gateway(opened, options, **arguments)
        async with Server(gateway, port=0, options=server) as serving:
            yield Theatre(opened, gateway, serving, hand)
    finally:
        if isinstance(engine, str):
            await opened.shut()


def _engine(name: str, folder: Path | None) -> Engine:
    return MemoryEngine() if name == "memory" else connect_engine(f"sqlite:///{folder}/jobs.db")

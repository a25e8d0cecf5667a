"""A TCP proxy that breaks lines by plan: between an engine and its server, where a network would."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple

__all__ = ["CUT", "DROP", "PASS", "RST", "STALL", "Action", "FaultProxy", "Plan", "delay", "drop", "rate", "seeded"]

Way = Literal["calls", "replies"]


class Action(NamedTuple):
    """What becomes of a piece of the stream: passed on; `delay` first, for `value` seconds; held until the plan
    changes (`stall`); swallowed (`drop`); the connection closed (`cut`) or reset (`rst`); passed on at `value` bytes
    a second (`rate`)."""

    kind: Literal["pass", "delay", "stall", "drop", "cut", "rst", "rate"]
    value: float = 0.0


PASS, STALL, DROP, CUT, RST = Action("pass"), Action("stall"), Action("drop"), Action("cut"), Action("rst")

Plan = Callable[[int, Way, int], Action]
"""Of a connection's number, the way and the number of the piece's first byte."""


def delay(seconds: float) -> Plan:
    """Everything comes so much later."""
    return lambda _connection, _way, _byte: Action("delay", seconds)


def rate(bytes_per_s: float) -> Plan:
    """A narrow line."""
    return lambda _connection, _way, _byte: Action("rate", bytes_per_s)


def drop(*ways: Way) -> Plan:
    """Nothing comes through in these directions, and nobody is told."""
    return lambda _connection, way, _byte: DROP if way in ways else PASS


def seeded(seed: int, **shares: float) -> Plan:
    """Each piece meets one of the actions named with these probabilities: the same ones for the same seed."""

    def plan(connection: int, way: Way, byte: int) -> Action:
        draw = random.Random(f"{seed}/{connection}/{way}/{byte}")
        point = draw.random()
        for kind, share in shares.items():
            if point < share:
                return Action(kind, draw.random() * 0.02)  # type: ignore[arg-type]
            point -= share
        return PASS

    return plan


class FaultProxy:
    """Listens on `port` and leads to `target`. `plan` may be set at any time; `connections` counts those that came,
    `pieces` what came over them."""

    def __init__(self, target: int, plan: Plan | None = None) -> None:
        self.port = 0
        self.connections = 0
        self.pieces = 0
        self.target = target
        self._plan: Plan = plan or (lambda _connection, _way, _byte: PASS)
        self._changed = asyncio.Event()
        self._writers: dict[int, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.heal()
        self.end_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def plan(self) -> Plan:
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan = plan
        self._changed.set()
        self._changed = asyncio.Event()

    def heal(self) -> None:
        """Break nothing from now on."""
        self.plan = lambda _connection, _way, _byte: PASS

    def end_all(self, *, rst: bool = False) -> None:
        """Close, or reset, every connection that there is."""
        for number in tuple(self._writers):
            self._end(number, rst)

    def inject(self, reply: bytes) -> None:
        """Put in a reply that no server gave."""
        for client, _ in self._writers.values():
            client.write(reply)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers[number] = writer, up_writer
        pumps = [
            asyncio.create_task(self._pump(number, "calls", reader, up_writer)),
            asyncio.create_task(self._pump(number, "replies", up_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            self._end(number, rst=False)
            self._tasks.discard(task)

    async def _pump(self, number: int, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        passed = 0
        with suppress(OSError):
            while piece := await source.read(65_536):
                if await self._passes(number, way, passed, len(piece)):
                    sink.write(piece)
                    await sink.drain()
                passed += len(piece)

    async def _passes(self, number: int, way: Way, byte: int, size: int) -> bool:
        """Do to a piece what the plan says; whether it is to be passed on."""
        self.pieces += 1
        action = self._plan(number, way, byte)
        while action.kind == "stall":
            await self._changed.wait()
            action = self._plan(number, way, byte)
        if action.kind in ("cut", "rst"):
            self._end(number, action.kind == "rst")
        elif action.kind == "delay":
            await asyncio.sleep(action.value)
        elif action.kind == "rate":
            await asyncio.sleep(size / action.value)
        return action.kind in ("pass", "delay", "rate")

    def _end(self, number: int, rst: bool) -> None:
        for writer in self._writers.pop(number, ()):
            if rst:
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing then resets
            writer.transport.abort()

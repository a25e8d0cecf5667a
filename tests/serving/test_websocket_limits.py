"""What a socket cannot be made to do: hold memory without end, wait for ever, or take what it should not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from serving_support import until, until_dropped
from websocket_support import Theatre, theatre

from ropeway.domain.event import Cursor
from ropeway.domain.log import EventPage, LogQuery
from ropeway.engines.memory import MemoryEngine
from ropeway.serving import GatewayOptions
from ropeway.serving.server import ServerOptions

TEXT, BINARY, CONT, CLOSE, PING = 1, 2, 0, 8, 9
FIN = 0x80


@asynccontextmanager
async def raw(t: Theatre, *headers: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A socket whose frames the test makes itself, after the handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", t.server.port, limit=1 << 24)
    writer.write(handshake(t, *headers))
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        yield reader, writer
    finally:
        writer.transport.abort()


def handshake(t: Theatre, *headers: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        "GET /v1/ws HTTP/1.1",
        f"Host: 127.0.0.1:{t.server.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: ropeway.v1",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, reserved: int = 0, length: int | None = None) -> bytes:
    """A client's frame, masked with zeros: the payload as it is."""
    size = len(data) if length is None else length
    first = (FIN if fin else 0) | reserved | opcode
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + data


async def close_code(reader: asyncio.StreamReader) -> int:
    """The code in the close frame that ends what the server sends."""
    async with asyncio.timeout(10):
        data = await reader.read()
    at = data.rindex(b"\x88")
    return int.from_bytes(data[at + 2 : at + 4], "big")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(TEXT, length=(1 << 20) + 1)], 1009),
        ([frame(TEXT, length=1 << 60)], 1009),
        ([frame(TEXT, bytes(700_000), fin=False), frame(CONT, length=400_000)], 1009),
        ([frame(TEXT, b"{}", reserved=0x40)], 1002),
        ([frame(CONT, b"x")], 1002),
        ([frame(TEXT, b"a", fin=False), frame(TEXT, b"b")], 1002),
        ([frame(3, b"x")], 1002),
        ([frame(PING, bytes(126))], 1002),
        ([frame(TEXT, b"\xff\xfe")], 1007),
        ([frame(BINARY, b"{}")], 1003),
        ([frame(TEXT, fin=False), *[frame(CONT, fin=False)] * 2000], 1002),
        ([b"\x81\x02{}"], 1002),
    ],
    ids=[
        "too large",
        "absurd length",
        "too large in parts",
        "compressed",
        "continues nothing",
        "unfinished",
        "unknown kind",
        "large ping",
        "not UTF-8",
        "binary",
        "endless parts",
        "unmasked",
    ],
)
async def test_a_frame_that_should_not_be_ends_the_socket(frames: list[bytes], code: int) -> None:
    """By its header alone where that tells: a frame that is too large is not waited for."""
    async with theatre() as t, raw(t) as (reader, writer):
        writer.write(b"".join(frames))
        assert await close_code(reader) == code
        await until(lambda: t.gateway.waiting == 0)


async def test_nothing_is_compressed() -> None:
    """A few bytes that unpack to gigabytes cannot be sent: the extension is not granted, however it is asked for."""
    async with theatre() as t, t.socket(compression="deflate") as socket:
        assert socket.wire.protocol.extensions == []
        assert await socket.hears_nothing()


async def test_a_message_may_come_in_parts() -> None:
    """And pings between them are answered."""
    async with theatre() as t, raw(t) as (reader, writer):
        parts = [frame(TEXT, b'{"type":"pi', fin=False), frame(PING, b"!"), frame(CONT, b'ng","ref":1}')]
        for byte in b"".join(parts):
            writer.write(bytes((byte,)))
        assert await reader.readexactly(3) == b"\x8a\x01!"
        assert await reader.readexactly(25) == b'\x81\x17{"type":"pong","ref":1}'


async def test_a_job_of_the_largest_size_passes_and_a_larger_one_is_told() -> None:
    """A megabyte with all that is around it."""
    async with theatre(options=GatewayOptions(max_body_bytes=10_000)) as t, t.socket() as socket:
        fits = await socket.ask("submit", job={"task": "free", "input": "x" * 9_800}, subscribe=False)
        assert fits["type"] == "ack"
        await socket.say("submit", job={"task": "free", "input": "x" * 9_980})
        assert await socket.closed() == 1009


class CountedEngine(MemoryEngine):
    """Counts the events that are read."""

    events_read = 0

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        page = await super().read(tenant, job_id, after, limit)
        self.events_read += 0 if page is None else len(page.events)
        return page

    async def read_many(self, queries: Sequence[LogQuery]) -> list[EventPage | None]:
        pages = await super().read_many(queries)
        self.events_read += sum(len(page.events) for page in pages if page is not None)
        return pages


async def test_a_client_that_takes_nothing_is_let_go_and_may_come_back() -> None:
    """4408 after the deadline. Until then a few pages of the log are held for it, however long the log is."""
    engine = CountedEngine()
    await engine.open()
    options = GatewayOptions(write_deadline_s=0.3)
    async with theatre(engine, options=options) as t:
        async with t.socket(max_queue=1) as socket:
            job_id = await socket.submit()
            first = (await socket.events(1))[0]["id"]
            socket.wire.transport.pause_reading()
            work = await t.hand.take()
            for n in range(400):
                await t.hand.emit(work, ("output.delta", {"index": n, "delta": "x" * 100_000}))
                await asyncio.sleep(0)
            await until(lambda: t.gateway.waiting == 0)
            assert engine.events_read < 200, "forty megabytes are in the log"
            socket.wire.transport.resume_reading()
            assert await socket.closed() == 4408
        engine.events_read = 0
        async with t.socket(max_size=None) as socket:
            await socket.ask("subscribe", job_id=job_id, after=first)
            events = await socket.events(401)
            assert [event["data"]["index"] for event in events[1:]] == list(range(400))
    await engine.shut()


async def test_who_sends_and_does_not_read_is_not_read_either() -> None:
    """A flood of pings: the answers that nobody takes are as many as fit into buffers, and then no more is taken in."""
    async with theatre() as t, raw(t) as (_reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        flood = frame(PING, bytes(125)) * 1_000
        sent = 0
        with contextlib.suppress(TimeoutError):
            for _ in range(2_000):  # a quarter of a gigabyte
                writer.write(flood)
                async with asyncio.timeout(0.5):
                    await writer.drain()
                sent += len(flood)
        assert sent < 50_000_000, "the server took in all that it was sent"


async def test_commands_wait_on_their_own_socket() -> None:
    """Thousands of questions sent at once are answered in order; another socket is not kept waiting by them."""
    async with theatre() as t, t.socket() as asks, t.socket() as other:
        refs = [await asks.say("ping") for _ in range(3_000)]
        assert await other.hears_nothing()
        assert [(await asks.hear())["ref"] for _ in refs] == refs


async def test_a_silent_peer_is_dropped() -> None:
    """One whose machine is gone answers no ping."""
    async with theatre(server=ServerOptions(ping_s=0.1)) as t:
        async with raw(t) as (reader, _writer):
            assert (await reader.readexactly(2)) == b"\x89\x00"
            await until(lambda: t.gateway.waiting == 0)
        async with t.socket() as socket:  # which answers pings by itself
            for _ in range(3):
                async with asyncio.timeout(10):
                    await socket.wire.ping()
            assert await socket.hears_nothing()


@pytest.mark.parametrize("cut", [20, -10])
async def test_a_handshake_that_does_not_come_is_dropped(cut: int) -> None:
    """Its head has the deadline of every head."""
    async with theatre(server=ServerOptions(header_deadline_s=0.2)) as t:
        reader, writer = await asyncio.open_connection("127.0.0.1", t.server.port)
        writer.write(handshake(t)[:cut])
        await until_dropped(reader, writer)


async def test_a_handshake_that_is_too_large_is_refused() -> None:
    """431, as any head."""
    async with theatre(server=ServerOptions(max_header_bytes=2_000)) as t:
        reader, writer = await asyncio.open_connection("127.0.0.1", t.server.port)
        writer.write(handshake(t, *[f"X-{n}: {'x' * 100}" for n in range(30)]))
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 431")
        writer.close()


@pytest.mark.parametrize(
    "broken",
    [
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
        ("Sec-WebSocket-Key: ", "X-Nothing: "),
        ("Connection: Upgrade", "Connection: keep-alive, Upgrade, x"),
    ],
)
async def test_a_handshake_by_the_letter(broken: tuple[str, str]) -> None:
    """What RFC 6455 asks for must be there; what it allows is allowed."""
    async with theatre() as t:
        reader, writer = await asyncio.open_connection("127.0.0.1", t.server.port)
        writer.write(handshake(t).decode().replace(*broken).encode())
        async with asyncio.timeout(10):
            status = await reader.readuntil(b"\r\n")
        assert (b" 101 " in status) == ("keep-alive" in broken[1])
        writer.transport.abort()


async def test_a_peer_that_does_not_answer_a_close_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few seconds; here at once."""
    monkeypatch.setattr("ropeway.serving.websocket.connection.CLOSE_S", 0.1)
    async with theatre() as t, raw(t) as (reader, writer):
        writer.write(frame(BINARY, b"x"))
        async with asyncio.timeout(10):
            assert (await reader.read()).endswith(b"JSON objects")

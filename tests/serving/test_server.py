"""The gateway behind its real server: ports and sockets, slow and silent clients, streams, and the drain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_support import QUICK, Hand, blocks_of, until, until_dropped

from ropeway.engines.memory import MemoryEngine
from ropeway.serving import Gateway, GatewayOptions
from ropeway.serving.server import Server, ServerOptions, serve


@asynccontextmanager
async def serving(
    options: ServerOptions | None = None, gateway_options: GatewayOptions | None = None, **where: Any
) -> AsyncIterator[tuple[Server, Gateway, Hand]]:
    """A server on a free port of this machine, with a worker in hand."""
    engine = MemoryEngine()
    await engine.open()
    hand = Hand(engine)
    await hand.announce()
    gateway = Gateway(engine, gateway_options)
    try:
        async with Server(gateway, **({"port": 0} | where), options=options) as server:
            yield server, gateway, hand
    finally:
        await engine.shut()


async def test_a_job_goes_all_the_way_over_a_socket() -> None:
    """Submit, stream, result, by an ordinary client on a port that was free."""
    async with serving() as (server, _, hand), httpx.AsyncClient(base_url=server.url) as http:
        assert server.port > 0
        job_id = (await http.post("/v1/jobs", json={"task": "greet", "input": {"name": "Ada"}})).json()["id"]
        async with http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            work = await hand.take()
            await hand.emit(work, ("output.delta", "Hi"))
            await hand.succeed(work, "Hi Ada")
            blocks = blocks_of(b"".join([chunk async for chunk in stream.aiter_raw()]))
        assert [block.event for block in blocks] == ["job.queued", "job.started", "output.delta", "job.succeeded"]
        assert (await http.get(f"/v1/jobs/{job_id}/result")).json() == "Hi Ada"
        assert (await http.get("/v1/jobs", headers={"host": "evil.test"})).status_code == 403


async def test_it_listens_on_a_unix_socket_for_this_user_alone(tmp_path: Path) -> None:
    """And takes the place of one that nobody listens behind any more."""
    path = tmp_path / "gateway.sock"
    for _ in range(2):
        async with serving(uds=path):
            assert path.stat().st_mode & 0o777 == 0o600
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                assert (await http.get("/livez")).json() == {"status": "ok", "detail": None}
        assert not path.exists()


async def test_a_port_that_is_taken_is_an_error() -> None:
    """Not a server that shares it."""
    async with serving() as (server, _, _hand):
        with pytest.raises(OSError, match="in use"):
            async with serving(port=server.port):
                pass


async def test_the_port_is_free_again_after() -> None:
    """What was opened is closed."""
    async with serving() as (server, _, _hand):
        port = server.port
    async with serving(port=port) as (server, _, _hand):
        assert server.port == port


@pytest.mark.parametrize("head", [b"", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_a_head_that_does_not_come_is_dropped(head: bytes) -> None:
    """Slowloris: silent, or a letter at a time. The connection is closed at the deadline, however it is fed."""
    async with serving(ServerOptions(header_deadline_s=0.2)) as (server, _, _hand):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head)
        await until_dropped(reader, writer, b"x" if head else b"")


async def test_a_head_that_is_too_large_is_refused() -> None:
    """431 by the server itself."""
    async with serving() as (server, _, _hand), httpx.AsyncClient(base_url=server.url) as http:
        for size in (20_000, 2_000_000):
            with contextlib.suppress(httpx.TransportError):  # dropped while it still sends
                assert (await http.get("/livez", headers={"x-large": "x" * size})).status_code == 431
        assert (await http.get("/livez", headers={"x-large": "x" * 8_000})).status_code == 200


async def test_a_body_that_does_not_come_is_given_up() -> None:
    """408, and the connection is closed."""
    options = GatewayOptions(body_deadline_s=0.05)
    async with serving(gateway_options=options) as (server, _, _hand):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 50\r\n\r\n{")
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_connection_is_used_again_and_again() -> None:
    """Also after a refusal that left its body unread; each head has its own time."""
    async with serving(ServerOptions(header_deadline_s=5)) as (server, _, _hand):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for status in (b"415", b"415"):
            writer.write(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 " + status)
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]))
        writer.close()
        await writer.wait_closed()


async def test_a_body_that_trickles_after_its_refusal_is_dropped() -> None:
    """Nobody reads it any more, and it may not hold the connection."""
    async with serving(ServerOptions(header_deadline_s=0.2)) as (server, _, _hand):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 415")
        await until_dropped(reader, writer)


async def test_a_client_that_leaves_is_noticed() -> None:
    """Its stream is closed here too."""
    async with serving() as (server, gateway, _hand), httpx.AsyncClient(base_url=server.url) as http:
        job_id = (await http.post("/v1/jobs", json={"task": "free"})).json()["id"]
        async with http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            await anext(stream.aiter_raw())
            assert gateway.waiting == 1
        await until(lambda: gateway.waiting == 0)


async def test_a_reader_that_takes_nothing_fills_no_memory_and_is_let_go() -> None:
    """The writes wait for it; after the deadline its stream is gone, and the log still has everything."""
    stage = serving(gateway_options=GatewayOptions(write_deadline_s=0.3))
    async with stage as (server, gateway, hand), httpx.AsyncClient(base_url=server.url) as http:
        job_id = (await http.post("/v1/jobs", json={"task": "free"})).json()["id"]
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await until(lambda: gateway.waiting == 1)
        work = await hand.take()
        for _ in range(40):
            await hand.emit(work, *[("output.delta", "x" * 250_000)] * 2)
        await until(lambda: gateway.waiting == 0)
        writer.transport.abort()
        rest = await http.get(f"/v1/jobs/{job_id}/events?follow=0&types=job.started")
        assert [block.event for block in blocks_of(rest.content)] == ["job.started"]


async def test_a_stop_asks_readers_back_and_finishes_what_is_being_answered() -> None:
    """A stream is told to reconnect and ends well; the stop does not wait for it to leave by itself."""
    stop = asyncio.Event()
    engine = MemoryEngine()
    await engine.open()
    await Hand(engine).announce()
    ready: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
    server_task = asyncio.create_task(
        serve(Gateway(engine), port=0, stopping=stop, on_ready=lambda server: ready.set_result(server))
    )
    server = await ready
    async with httpx.AsyncClient(base_url=server.url) as http:
        job_id = (await http.post("/v1/jobs", json={"task": "free"})).json()["id"]
        async with http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            chunks = stream.aiter_raw()
            received = await anext(chunks)
            stop.set()
            async for chunk in chunks:
                received += chunk
        assert [block.event for block in blocks_of(received)] == ["job.queued", "reconnect"]
    async with asyncio.timeout(10):
        await server_task
    await engine.shut()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


def test_loopback_is_what_a_gateway_answers_to_unless_told() -> None:
    """The default is the safe one."""
    assert GatewayOptions().allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert QUICK.allowed_origins == ()

"""Our connections, which replace parts of uvicorn's: what they save must not cost what they tell."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from typing import cast

import pytest
from serving_support import until
from test_server import serving

from ropeway.serving import GatewayOptions
from ropeway.serving.connection import Connection
from ropeway.serving.flag import Flag, departure_of
from ropeway.serving.replies import Receive

EVENTS = "GET /v1/jobs/{}/events HTTP/1.1\r\nHost: localhost\r\n{}\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _submitted(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"task":"free"}'
    writer.write(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    writer.write(b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    answer = await reader.read()
    writer.close()
    return answer.partition(b'"id":"')[2].partition(b'"')[0].decode()


async def test_a_reader_that_sent_another_request_behind_its_stream_is_missed_too() -> None:
    """When it leaves, the stream ends, and does not wait for the job to say something for ever."""
    async with serving(gateway_options=GatewayOptions(heartbeat_s=0.05)) as (server, gateway, _):
        job_id = await _submitted(server.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(EVENTS.format(job_id, "").encode() + LIVEZ * 3)
        await reader.readuntil(b"job.queued")
        assert gateway.waiting == 1
        writer.transport.abort()
        await until(lambda: gateway.waiting == 0)


async def test_requests_sent_at_once_are_answered_in_turn() -> None:
    """Also behind a stream, once that has ended."""
    async with serving() as (server, _, hand):
        job_id = await _submitted(server.port)
        work = await hand.take()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(EVENTS.format(job_id, "").encode() + LIVEZ * 2)
        await reader.readuntil(b"job.started")
        await hand.succeed(work, "done")
        await reader.readuntil(b"0\r\n\r\n")
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b"}")
        writer.close()
        await writer.wait_closed()


async def test_a_stream_with_a_body_that_never_ends_is_left_as_well() -> None:
    """What nobody wants is taken and thrown away, so that the connection's end is seen behind it."""
    async with serving() as (server, gateway, _):
        job_id = await _submitted(server.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(EVENTS.format(job_id, "Content-Length: 100000000\r\n").encode())
        await reader.readuntil(b"job.queued")
        writer.write(b"x" * 1_000_000)
        await writer.drain()
        writer.transport.abort()
        await until(lambda: gateway.waiting == 0)


@pytest.mark.parametrize(("kind", "status"), [("application/json", b"413"), ("text/plain", b"415")])
async def test_who_sends_too_much_reads_why_it_was_refused(kind: str, status: bytes) -> None:
    """What is left of the body is taken and thrown away, and the connection is of use for the next request."""
    async with serving() as (server, _, _hand):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 20000000\r\n\r\n"
        writer.write(head.encode())
        for _ in range(20):
            writer.write(b"x" * 1_000_000)
            await writer.drain()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 " + status)
        writer.write(LIVEZ)
        await reader.readuntil(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()


async def test_a_stream_is_one_task_and_its_parts_are_small() -> None:
    """What a reader costs rests on it: with another uvicorn this may cease to be so, and must be seen."""
    async with serving() as (server, gateway, _):
        job_id = await _submitted(server.port)
        await until(lambda: not _connections())
        before = asyncio.all_tasks()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(EVENTS.format(job_id, "").encode())
        await reader.readuntil(b"job.queued")
        await until(lambda: len(asyncio.all_tasks() - before) == 1)
        (connection,) = _connections()
        assert departure_of(cast(Receive, connection.cycle.receive)) is not None
        parts = (connection.flow, connection.pipeline, connection.cycle.message_event)
        assert not any(isinstance(part, asyncio.Event | deque) for part in parts)
        writer.close()
        await until(lambda: gateway.waiting == 0)


def _connections() -> list[Connection]:
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, Connection)]


async def test_a_flag_is_as_an_event() -> None:
    """Raised before it is waited for, or after; taken down; and told by a call."""
    flag = Flag()
    calls: list[bool] = []
    flag.call = lambda: calls.append(flag.is_set())
    waiting = asyncio.create_task(flag.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    flag.set()
    await waiting
    await flag.wait()
    flag.clear()
    assert (flag.is_set(), calls) == (False, [True])

"""The gateway as a process of its own: what a supervisor and a slow client see of it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpx
import pytest
from serving_support import blocks_of, until_dropped

PROGRAM = """
import asyncio
from ropeway.engines.memory import MemoryEngine
from ropeway.domain.worker import TaskCard
from ropeway.serving import Gateway
from ropeway.serving.server import ServerOptions, serve

async def main():
    engine = MemoryEngine()
    await engine.open()
    await engine.publish([TaskCard("free")])
    await serve(
        Gateway(engine),
        port=0,
        options=ServerOptions(header_deadline_s=0.5),
        on_ready=lambda server: print(server.port, flush=True),
    )
    print("drained", flush=True)

asyncio.run(main())
"""


class Process(NamedTuple):
    process: asyncio.subprocess.Process
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def running() -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            port = int(await process.stdout.readline())
        yield Process(process, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_it(number: signal.Signals) -> None:
    """Its readers are asked back, its exit is 0, and it has nothing to complain of."""
    async with running() as server, httpx.AsyncClient(base_url=server.url) as http:
        job_id = (await http.post("/v1/jobs", json={"task": "free"})).json()["id"]
        async with http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            chunks = stream.aiter_raw()
            received = await anext(chunks)
            server.process.send_signal(number)
            async for chunk in chunks:
                received += chunk
        assert [block.event for block in blocks_of(received)] == ["job.queued", "reconnect"]
        async with asyncio.timeout(60):
            said, complained = await server.process.communicate()
        assert (server.process.returncode, said, complained) == (0, b"drained\n", b"")


async def test_a_trickled_head_does_not_hold_it() -> None:
    """Slowloris: fifty connections that send a letter now and then are dropped; who asks properly is answered."""
    async with running() as server, httpx.AsyncClient(base_url=server.url) as http:
        streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(50)]
        for _, writer in streams:
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        dropped = asyncio.gather(*[until_dropped(reader, writer) for reader, writer in streams])
        async with asyncio.timeout(60):
            while not dropped.done():
                assert (await http.get("/livez", headers={"connection": "close"})).status_code == 200
            await dropped

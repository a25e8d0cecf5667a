"""The two processes of the tests with thousands of readers: `python crowd_program.py gateway|readers {options}`.

The gateway takes orders on its standard input, a line each: `go` starts its worker, `waiting` asks for its streams.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from ropeway import App, Client, Worker, WorkerOptions, connect
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.serving import Gateway, GatewayOptions
from ropeway.serving.server import ServerOptions, serve

__all__: list[str] = []

OPENING_AT_ONCE = 100

app = App()


@app.task(queue="work")
async def count(tokens: int, per_s: float) -> AsyncIterator[str]:
    """Tokens at the pace of a model."""
    for n in range(tokens):
        await asyncio.sleep(1 / per_s)
        yield f"{n};"


@app.task(queue="work")
async def flood(pieces: int, size: int) -> AsyncIterator[dict[str, Any]]:
    """More than a connection holds."""
    for n in range(pieces):
        yield {"n": n, "text": "x" * size}


@app.task(queue="nobody")
async def never() -> None:
    """Waits for a worker that does not come."""


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def raise_file_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# -- the gateway


async def gateway(url: str, active: int, idle: int, task: str, input: dict[str, Any], **options: Any) -> None:  # noqa: A002
    """Serve `active` jobs of `task` and `idle` jobs that nobody will run, and take orders."""
    tune_interpreter()
    engine = connect(url)
    await engine.open()
    await engine.publish(app.cards)
    client = Client(engine)
    jobs = [(await client.submit(task, **input)).id for _ in range(active)]
    waiting = [(await client.submit("never")).id for _ in range(idle)]
    made = Gateway(engine, GatewayOptions(**options))
    worker = Worker(app, engine, WorkerOptions(concurrency=active + 1, queues=("work",)))
    running: list[asyncio.Task[None]] = []

    def order(line: str) -> None:
        if line == "go":
            running.append(asyncio.get_running_loop().create_task(worker.run()))
        elif line == "waiting":
            say(waiting=made.waiting)

    orders = asyncio.create_task(_take_orders(order))
    await serve(
        made,
        port=0,
        options=ServerOptions(backlog=4_096),
        on_ready=lambda server: say(port=server.port, active=jobs, idle=waiting),
    )
    orders.cancel()
    worker.drain()
    await asyncio.gather(*running)
    await engine.shut()


async def _take_orders(order: Any) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order(line.decode().strip())


# -- the readers


class Reader(asyncio.Protocol):
    """One stream, read to its end; what it was told is looked at then."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.received = bytearray()
        self.opened = asyncio.get_running_loop().create_future()
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        head = f"GET /v1/jobs/{self.job_id}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        transport.write(f"{head}Accept: application/x-ndjson\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.opened.done() and b'"job.queued"' in self.received:
            self.opened.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.opened, self.closed):
            if not future.done():
                future.set_result(None)

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = bytes(self.received).partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2]  # each is a chunk behind its size
        text = b"".join(lines).split(b"\n")
        return [msgspec.json.decode(line) for line in text if line]


async def readers(port: int, active: list[str], idle: list[str], idle_readers: int) -> None:
    """A reader for each active job, and `idle_readers` for the idle ones; tell how each fared."""
    gate = asyncio.Semaphore(OPENING_AT_ONCE)
    loop = asyncio.get_running_loop()

    async def opened(job_id: str) -> Reader:
        async with gate:
            _, reader = await loop.create_connection(lambda: Reader(job_id), "127.0.0.1", port)
            await reader.opened
            return reader

    waiting = await asyncio.gather(*(opened(idle[n % len(idle)]) for n in range(idle_readers)))
    live = await asyncio.gather(*(opened(job_id) for job_id in active))
    say(open=sum(not reader.closed.done() for reader in (*waiting, *live)))
    await asyncio.gather(*(reader.closed for reader in live))
    say(stories=_counted([_story(reader.events) for reader in live]), left=sum(r.closed.done() for r in waiting))
    await asyncio.gather(*(reader.closed for reader in waiting))
    say(stories=_counted([_story(reader.events) for reader in waiting]))


def _story(events: list[dict[str, Any]]) -> str:
    """A reader's log in a few words; `broken` when something is missing, twice, or out of order."""
    places = [tuple(map(int, event["id"].split("-"))) for event in events if "id" in event]
    epochs: dict[int, list[int]] = {}
    for epoch, seq in places:
        epochs.setdefault(epoch, []).append(seq)
    whole = all(seqs == list(range(seqs[0], seqs[0] + len(seqs))) for seqs in epochs.values())
    if places != sorted(places) or not whole:
        return "broken"
    text = "".join(event["data"]["delta"] for event in events if event["type"] == "output.delta")
    return f"{text} {events[-1]['type']}".strip()


def _counted(stories: list[str]) -> dict[str, int]:
    return {story: stories.count(story) for story in sorted(set(stories))}


if __name__ == "__main__":
    raise_file_limit()
    role, given = sys.argv[1], json.loads(sys.argv[2])
    run_loop(gateway(**given) if role == "gateway" else readers(**given))

"""Two gateways on one Valkey: a client that loses the one goes on at the other; what it sends reaches the worker."""

from __future__ import annotations

import asyncio
import secrets
import socket as socket_module
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from serving_support import ENGINES, until
from starlette.applications import Starlette
from starlette.routing import Mount
from websocket_support import SUBPROTOCOL, Socket, theatre
from websockets.asyncio.client import connect as connect_socket

import ropeway
from ropeway.engines.base import Engine
from ropeway.engines.connect import connect
from ropeway.runtime import App, Context, Worker, WorkerOptions
from servers import shared_server

WORDS = [f"word{n} " for n in range(60)]

app = App()


@app.task
async def recite(ctx: Context) -> AsyncIterator[str]:
    """Says its words, each when it is asked for the next."""
    for word in WORDS:
        yield word
        await ctx.input()


@app.task
def shout(ctx: Context) -> str:
    """Repeats what it is told, from a thread."""
    return "+".join(ctx.input_blocking() for _ in range(3))


@asynccontextmanager
async def engines(count: int) -> AsyncIterator[list[Engine]]:
    """As many engines, each as in a process of its own, on one server."""
    url = f"{shared_server().url}/0?prefix=ws-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            engine = connect(url)
            await engine.open()
            stack.push_async_callback(engine.shut)
            opened.append(engine)
        yield opened


@asynccontextmanager
async def working(engine: Engine) -> AsyncIterator[Worker]:
    worker = Worker(app, engine, WorkerOptions(name="apart"))
    running = asyncio.create_task(worker.run())
    await worker.started()
    try:
        yield worker
    finally:
        worker.end_now()
        await running


async def heard_while_asking(socket: Socket, job_id: str, events: list[dict[str, Any]], until_words: int) -> None:
    """Hear events, and ask for the next word at each, until there are so many words."""
    while sum(len(event["data"]["delta"].split()) for event in events if event["type"] == "output.delta") < until_words:
        message = await socket.hear()
        if message["type"] == "event":
            events.append(message["event"])
            if message["event"]["type"] == "output.delta":
                await socket.say("input", job_id=job_id, data="next")
        else:
            assert message["type"] == "ack", message


async def test_a_stream_that_broke_goes_on_at_another_gateway() -> None:
    """No word is missing and none comes twice, however often the client changes over in mid-stream."""
    async with engines(3) as (one, two, three), working(three):
        async with theatre(one) as here, theatre(two) as there:
            events: list[dict[str, Any]] = []
            async with here.socket() as socket:
                job_id = await socket.submit("recite")
                await heard_while_asking(socket, job_id, events, 10)
            for n, stage in enumerate((there, here, there, here), start=2):
                async with stage.socket() as socket:
                    ack = await socket.ask("subscribe", job_id=job_id, after=events[-1]["id"])
                    assert ack["job"]["state"] == "running"
                    await socket.say("input", job_id=job_id, data="next", key=f"change-{n}")
                    await heard_while_asking(socket, job_id, events, n * 10)
            async with there.socket() as socket:
                await socket.ask("subscribe", job_id=job_id, after=events[-1]["id"])
                await socket.say("input", job_id=job_id, data="next")  # an input whose ack was not heard may be lost
                await heard_while_asking(socket, job_id, events, len(WORDS))
                while events[-1]["type"] != "job.succeeded":
                    message = await socket.hear()
                    if message["type"] == "event":
                        events.append(message["event"])
        assert "".join(e["data"]["delta"] for e in events if e["type"] == "output.delta") == "".join(WORDS)
        assert len({event["id"] for event in events}) == len(events)
        assert events[-1]["data"]["output"] == "".join(WORDS)


@pytest.mark.parametrize("engine", [*ENGINES, "valkey"])
@pytest.mark.parametrize("way", ["socket", "route"])
async def test_what_is_sent_up_reaches_the_task(engine: str, way: str, home: Path) -> None:
    """By a frame or by the route, on every engine, to a worker that shares nothing but the store."""
    async with AsyncExitStack() as stack:
        if engine == "valkey":
            near, far = await stack.enter_async_context(engines(2))
        elif engine == "sqlite":
            near, far = connect(f"sqlite:///{home}/jobs.db"), connect(f"sqlite:///{home}/jobs.db")
            for opened in (near, far):
                await opened.open()
                stack.push_async_callback(opened.shut)
        else:
            near = far = connect("memory:")
            await near.open()
            stack.push_async_callback(near.shut)
        t = await stack.enter_async_context(theatre(near))
        await stack.enter_async_context(working(far))
        http = await stack.enter_async_context(t.http())
        socket = await stack.enter_async_context(t.socket())
        job_id = await socket.submit("shout", types=["job.started", "job.succeeded"])
        await socket.events(1)
        path = f"/v1/jobs/{job_id}/input"
        for word in ("a", "b", "c"):
            if way == "socket":
                assert (await socket.ask("input", job_id=job_id, data=word))["job_id"] == job_id
            else:
                for _ in range(2):
                    answer = await http.post(path, json={"data": word}, headers={"Idempotency-Key": word})
                    if answer.status_code != 202:
                        assert (word, answer.json()["code"]) == ("c", "job_ended"), answer.text
        (event,) = await socket.events(1)
        assert event["data"]["output"] == "a+b+c"
        late = await http.post(path, json={"data": "d"})
        assert (late.status_code, late.json()["code"]) == (409, "job_ended")
        assert await socket.refused("input", job_id=job_id, data="d") == "job_ended"


async def test_it_works_inside_an_application() -> None:
    """Mounted in another application, behind another server's own WebSockets: the same words, and the same limits."""
    async with AsyncExitStack() as stack:
        mounted = ropeway.asgi(app, "memory:", worker=True)
        await stack.enter_async_context(mounted.lifespan())
        config = uvicorn.Config(
            Starlette(routes=[Mount("/ai", mounted)]), ws="websockets-sansio", lifespan="off", log_level="critical"
        )
        server = uvicorn.Server(config)
        with socket_module.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            await until(lambda: server.started)
            url = f"ws://127.0.0.1:{listening.getsockname()[1]}/ai/v1/ws"
            async with connect_socket(url, subprotocols=[SUBPROTOCOL]) as wire:
                socket = Socket(wire)
                ack = await socket.ask("submit", job={"task": "shout"}, types=["job.started", "job.succeeded"])
                assert ack["job"]["links"]["self"] == f"/ai/v1/jobs/{ack['job']['id']}"
                await socket.events(1)
                for word in "abc":
                    await socket.ask("input", job_id=ack["job"]["id"], data=word)
                assert (await socket.events(1))[0]["data"]["output"] == "a+b+c"
                await socket.say_text(f'{{"type":"ping","ref":"{"x" * (1 << 20)}"}}')
                assert await socket.closed() == 1009
            server.should_exit = True
            await serving


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"data": 1}', 409, "job_not_running"),
        (b"{}", 400, "invalid_request"),
        (b"", 400, "invalid_request"),
        (b"[1]", 400, "invalid_request"),
        (b'{"data": 1, "x": 2}', 400, "invalid_request"),
        (b'{"data": "' + b"x" * 300_000 + b'"}', 413, "payload_too_large"),
    ],
)
async def test_an_input_that_is_refused_says_why(body: bytes, status: int, code: str) -> None:
    """On a job that waits in its queue."""
    async with theatre() as t, t.http() as http:
        job_id = (await http.post("/v1/jobs", json={"task": "free"})).json()["id"]
        headers = {"content-type": "application/json"}
        answer = await http.post(f"/v1/jobs/{job_id}/input", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        missing = await http.post("/v1/jobs/job_0/input", json={"data": 1})
        assert (missing.status_code, missing.json()["code"]) == (404, "job_not_found")

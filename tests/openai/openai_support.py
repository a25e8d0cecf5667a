"""What the tests of the OpenAI routes share: model tasks that say what they are told, real servers, and real SDKs."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent / "sdks"))

from install import HERE, VERSIONS, python_of

from ropeway import App, ChatDelta, ChatRequest, Context, EmbeddingRequest, Fail, ModelCard, Worker
from ropeway.domain.chat import text_of
from ropeway.engines.base import Engine
from ropeway.engines.connect import connect
from ropeway.serving import Gateway, GatewayOptions
from ropeway.serving.server import Server

__all__ = [
    "Gates",
    "Sdk",
    "World",
    "data_of",
    "each_sdk",
    "model_app",
    "newest_sdk",
    "response_sdk",
    "until",
    "user",
    "world",
]

BACKGROUND = "2.8.0"  # from here on the SDK knows responses
ANSWER_S = 60.0


def user(text: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


class Gates:
    """Places in a task where it waits until the test lets it go on: by name, opened once."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}
        self.reached: set[str] = set()

    def __getitem__(self, name: str) -> asyncio.Event:
        return self._events.setdefault(name, asyncio.Event())

    async def pass_through(self, name: str) -> None:
        self.reached.add(name)
        await self[name].wait()

    def open(self, name: str) -> None:
        self[name].set()


def model_app(gates: Gates) -> App:
    """Models whose answers follow from what they are asked.

    `words` gives the last message back, a word at a time; a word `@name` waits at that gate, `!` fails for good, `?`
    fails and is tried again, once. `tools` calls the functions that it is given.
    """
    app = App()
    _add_words(app, gates)
    _add_tools(app)
    _add_lengths(app)
    return app


def _add_words(app: App, gates: Gates) -> None:
    @app.task(models=[ModelCard("words", "chat", created=1_700_000_000)])
    async def chat(request: ChatRequest, *, ctx: Context) -> AsyncIterator[str]:
        ctx.progress(0.1, message="reading")
        ctx.log("a line for the native stream")
        words = text_of(request.messages[-1]).split()
        ctx.usage(input_tokens=sum(len(text_of(message).split()) for message in request.messages))
        for word in words[: request.max_tokens]:
            if word == "!":
                raise Fail("this model is out of words")
            if word == "?" and ctx.attempt == 1:
                raise ConnectionError("the first attempt fails")
            if word.startswith("@"):
                await gates.pass_through(word[1:])
            elif word != "?":
                yield f"{word} "
                ctx.usage(output_tokens=1)


def _add_tools(app: App) -> None:
    @app.task(models=[ModelCard("org/tools:1", "chat", takes=("tools", "response_format", "images"))])
    async def toolbox(request: ChatRequest, *, ctx: Context) -> AsyncIterator[str | ChatDelta]:
        yield ChatDelta(reasoning="They want a tool. ")
        yield ChatDelta(reasoning="I have some.")
        if request.messages[-1]["role"] == "tool":
            yield f"it is {text_of(request.messages[-1])}"
            yield ChatDelta(finish_reason="length")
            return
        for index, tool in enumerate(request.tools):
            function = {"name": tool["function"]["name"], "arguments": '{"city": '}
            yield ChatDelta(tool_calls=[{"index": index, "id": f"call_{index}", "function": function}])
            yield ChatDelta(tool_calls=[{"index": index, "function": {"arguments": '"Ulm"}'}}])


def _add_lengths(app: App) -> None:
    @app.task(models=[ModelCard("lengths", "embedding")])
    def embed(request: EmbeddingRequest, *, ctx: Context) -> list[list[float]]:
        ctx.usage(input_tokens=len(request.input))
        return [[float(len(text)), 0.25, -1.5] for text in request.input]


@dataclass
class World:
    """Gateways on one engine, with a worker, on the loopback. `seen`: the requests, as `METHOD path?query`."""

    engine: Engine
    gates: Gates
    gateways: list[Gateway]
    urls: list[str]
    seen: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.urls[0]

    async def jobs(self) -> list[dict[str, Any]]:
        """All of them, the newest first."""
        async with httpx.AsyncClient() as http:
            listed = (await http.get(f"{self.url}/v1/jobs?limit=200")).json()["data"]
            return [(await http.get(f"{self.url}/v1/jobs/{job['id']}")).json() for job in listed]

    async def the_job(self) -> dict[str, Any]:
        """The one job that there is."""
        (job,) = await self.jobs()
        return job

    async def pause(self, queue: str) -> None:
        """Let nothing of this queue run."""
        async with httpx.AsyncClient(base_url=self.url) as http:
            (await http.post(f"/v1/queues/{queue}/pause")).raise_for_status()

    async def resume(self, queue: str) -> None:
        async with httpx.AsyncClient(base_url=self.url) as http:
            (await http.post(f"/v1/queues/{queue}/resume")).raise_for_status()

    async def until_state(self, *states: str) -> dict[str, Any]:
        """The one job, as soon as it is in one of these states."""
        async with httpx.AsyncClient(base_url=self.url) as http:
            job = await self.the_job()
            while job["state"] not in states:  # each look waits for the next change
                known = {"If-None-Match": f'"{job["version"]}"', "Prefer": "wait=30"}
                job = (await http.get(f"/v1/jobs/{job['id']}", headers=known)).json()
        return job


@asynccontextmanager
async def world(
    engine: str | Engine = "memory:",
    options: GatewayOptions | None = None,
    gateways: int = 1,
    blobs: str | None = None,
) -> AsyncIterator[World]:
    """Everything that a client needs, in this process. An engine that is given is its owner's to shut."""
    gates = Gates()
    app = model_app(gates)
    opened = connect(engine) if isinstance(engine, str) else engine
    if isinstance(engine, str):
        await opened.open()
    worker = Worker(app, opened)
    working = asyncio.create_task(worker.run())
    async with contextlib.AsyncExitStack() as stack:
        seen: list[str] = []
        doors = [Gateway(opened, options or GatewayOptions(), blobs=blobs) for _ in range(gateways)]
        servers = [await stack.enter_async_context(Server(_logged(door, seen), port=0)) for door in doors]
        await opened.publish(app.cards)
        yield World(opened, gates, doors, [server.url for server in servers], seen)
    worker.drain()
    for gate in list(gates.reached):
        gates.open(gate)
    await working
    if isinstance(engine, str):
        await opened.shut()


def _logged(gateway: Gateway, seen: list[str]) -> Gateway:
    """The gateway, noting what it is asked."""
    served = gateway._serve

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        query = scope["query_string"].decode()
        seen.append(f"{scope['method']} {scope['path']}{'?' if query else ''}{query}")
        await served(scope, receive, send)

    gateway._serve = serve  # type: ignore[method-assign]
    return gateway


class Sdk:
    """One version of OpenAI's SDK, in a process of its own that lives as long as the tests do."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._started: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    @property
    def _process(self) -> subprocess.Popen[str]:
        """Started by the first command, and ended with the tests."""
        if self._started is None:
            command = [str(python_of(self.version)), "-I", str(HERE / "driver.py")]
            self._started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            atexit.register(self._close)
        return self._started

    @property
    def knows_responses(self) -> bool:
        return self.version >= BACKGROUND

    async def __call__(
        self, url: str, do: str, /, *, key: str = "none", retries: int = 0, timeout: float = 30.0, **args: Any
    ) -> Any:
        """What the SDK says to a command, as the driver has it. Raises AssertionError when the driver itself failed."""
        command = {"url": url, "do": do, "key": key, "retries": retries, "timeout": timeout, "args": args}
        async with asyncio.timeout(ANSWER_S):
            answer = await asyncio.to_thread(self._ask, json.dumps(command))
        assert "crash" not in answer, answer["crash"]
        return answer.get("ok", answer)

    def _ask(self, command: str) -> dict[str, Any]:
        with self._lock:
            process = self._process
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(command + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = msgspec.json.decode(process.stdout.readline())
            return answer

    def _close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


SDKS = tuple(Sdk(version) for version in VERSIONS)

each_sdk = pytest.mark.parametrize("sdk", SDKS, ids=VERSIONS)
"""For each supported version of OpenAI's SDK: the oldest, one between, the newest."""

newest_sdk = pytest.mark.parametrize("newest", SDKS[-1:], ids=VERSIONS[-1:])
"""For the newest one, where one is enough."""

response_sdk = pytest.mark.parametrize("sdk", SDKS[1:], ids=VERSIONS[1:])
"""For each that knows responses."""


async def until(holds: Callable[[], bool], what: str) -> None:
    """Look until this holds."""
    deadline_s = asyncio.get_running_loop().time() + 30
    while not holds():
        assert asyncio.get_running_loop().time() < deadline_s, f"never came true: {what}"
        await asyncio.sleep(0.005)


def data_of(stream: bytes) -> Iterator[Any]:
    """What the data lines of a stream say."""
    for line in stream.decode().splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))

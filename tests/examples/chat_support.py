"""What the chat's tests share: the page in a real browser, on gateways in this process or in ones to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
from examples.websocket_chat.settings import ChatSettings
from examples.websocket_chat.tasks import build
from examples.websocket_chat.web import ChatWeb
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from ropeway import GatewayOptions, Worker, WorkerOptions, connect
from ropeway.domain.job import DEFAULT_TENANT, Job, JobQuery
from ropeway.engines.base import Engine
from ropeway.serving import Gateway
from ropeway.serving.server import Server
from servers import free_port

__all__ = [
    "Chat",
    "Killable",
    "ask",
    "browser",
    "chat",
    "counted",
    "expect",
    "frames_of",
    "page_of",
    "working",
]

ROOT = Path(__file__).parent.parent.parent
PATIENCE_MS = 30_000
START_LIMIT_S = 60.0
QUICK = ChatSettings(word_s=0.01)

_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
_MORE_FLAGS = ("--disable-component-update", "--disable-sync")

expect.set_options(timeout=PATIENCE_MS)


def chromium() -> str:
    """The browser that $CHROMIUM names, or the system's.

    Raises AssertionError when there is none: a page that nobody looked at is not tested.
    """
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "no Chromium: `apt-get install chromium`, as `make test` does, or name one by $CHROMIUM"
    return found


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=chromium(), args=[*_FLAGS, *_MORE_FLAGS])
        try:
            yield opened
        finally:
            await opened.close()


@asynccontextmanager
async def page_of(
    where: Browser | BrowserContext, url: str, *, quiet: bool = True, **context: Any
) -> AsyncIterator[Page]:
    """The chat's page, connected. With `quiet`, whatever the browser complains of fails the test at the end."""
    complaints: list[str] = []
    async with AsyncExitStack() as stack:
        if isinstance(where, Browser):
            where = await where.new_context(**context)
            stack.push_async_callback(where.close)
        page = await where.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        await page.goto(url)
        yield page
        await page.close()
    assert not quiet or complaints == []


async def ask(page: Page, text: str) -> None:
    """Write it, and press Enter."""
    await page.get_by_label("Your message").fill(text)
    await page.keyboard.press("Enter")


def counted(to: int) -> str:
    """What the echo says to `count to N`."""
    return " ".join(map(str, range(1, to + 1))) + " and that is all."


class Chat:
    """The chat, served in this process."""

    def __init__(self, engine: Engine, server: Server) -> None:
        self.engine = engine
        self.server = server
        self.url = server.url

    async def jobs(self) -> list[Job]:
        """All jobs there are, the latest first."""
        return list((await self.engine.find(JobQuery(DEFAULT_TENANT))).jobs)


@asynccontextmanager
async def chat(own: ChatSettings = QUICK, *, worker: bool = True) -> AsyncIterator[Chat]:
    """A chat on a memory engine, with or without anybody who answers."""
    engine = connect("memory:")
    await engine.open()
    try:
        web = ChatWeb(engine, own, GatewayOptions(), worker=WorkerOptions(name="worker-1") if worker else None)
        async with Server(cast(Gateway, web), port=0) as server:
            yield Chat(engine, server)
    finally:
        await engine.shut()


@asynccontextmanager
async def working(engine: Engine, own: ChatSettings = QUICK) -> AsyncIterator[Worker]:
    """A worker of the chat's task, in this process."""
    worker = Worker(build(own), engine, WorkerOptions(name="worker-1"))
    running = asyncio.create_task(worker.run())
    await worker.started()
    try:
        yield worker
    finally:
        worker.end_now()
        await running


class Killable:
    """A gateway with the page, in a process of its own, on a port that it keeps when it is started again."""

    def __init__(self, engine_url: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.peers: tuple[str, ...] = ()
        self._engine_url = engine_url
        self._log = folder / f"gateway-{self.port}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it says that it serves."""
        command = [sys.executable, "-m", "examples.websocket_chat.gateway", "--engine", self._engine_url]
        with self._log.open("ab") as said:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                *("--port", str(self.port), "--peers", ",".join(self.peers)),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=said,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_LIMIT_S):
            line = await self._process.stdout.readline()
        assert line, self._log.read_text()[-4000:]
        assert json.loads(line)["url"] == self.url

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()


def frames_of(page: Page) -> list[dict[str, Any]]:
    """What the page says on its sockets from now on."""
    said: list[dict[str, Any]] = []

    def listen(socket: Any) -> None:
        socket.on("framesent", lambda payload: said.append(msgspec.json.decode(payload)))

    page.on("websocket", listen)
    return said

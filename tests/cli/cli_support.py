"""What the command line's tests share: an application, a store with jobs in it, and a worker on a thread."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from typer.testing import CliRunner, Result

from ropeway.cli.main import app as commands
from ropeway.domain.retry import Retry
from ropeway.engines.connect import connect
from ropeway.runtime import App, Context, Worker, WorkerOptions, given
from servers import shared_server

__all__ = ["app", "lines_of", "publish", "redis_url", "run", "url_in", "working"]

_prefixes = itertools.count(1)

app = App()


@app.task
async def greet(name: str) -> dict[str, str]:
    """Greet somebody."""
    return {"text": f"Hello, {name}!"}


@app.task
async def spell(word: str, *, ctx: Context = given) -> AsyncIterator[str]:
    """Spell a word."""
    ctx.progress(0.5, message="clearing the throat")
    for letter in word:
        yield letter


@app.task(retry=Retry(max_attempts=1))
async def fail(message: str) -> None:
    """Fail."""
    raise ValueError(message)


@app.task
async def repeat(*, ctx: Context = given) -> str:
    """Say what it is sent."""
    return f"sent: {await ctx.input()}"


def run(*arguments: str, stdin: str | None = None) -> Result:
    """Run `ropeway` with these arguments, here in this process, with its output on a pipe."""
    return CliRunner().invoke(commands, list(arguments), input=stdin)


def lines_of(result: Result) -> list[Any]:
    """What a command wrote as JSON lines."""
    return [msgspec.json.decode(line) for line in result.stdout.splitlines()]


def publish(url: str, tasks: Sequence[str] = ("greet", "spell", "fail", "repeat")) -> None:
    """Make the store, and announce the tasks in it, as a worker does."""

    async def work() -> None:
        engine = connect(url)
        await engine.open()
        await engine.publish([app.tasks[name].card for name in tasks])
        await engine.shut()

    asyncio.run(work())


@contextmanager
def working(url: str) -> Iterator[Worker]:
    """A worker on this store, on a thread of its own."""
    engine = connect(url)
    worker = Worker(app, engine, WorkerOptions(name="tester", threads=2))
    ready = threading.Event()

    async def work() -> None:
        await engine.open()
        running = asyncio.create_task(worker.run())
        await worker.started()
        ready.set()
        await running
        await engine.shut()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield worker
    finally:
        worker.drain()
        thread.join()


def url_in(folder: Path) -> str:
    return f"sqlite:{folder / 'jobs.db'}"


def redis_url() -> str:
    """A store that holds nothing yet, on the server that tests share."""
    return f"{shared_server().url}?prefix=cli{next(_prefixes)}"

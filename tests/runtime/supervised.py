"""The programs that the supervisor's tests keep running: `python supervised.py ROLE DATABASE`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ropeway.engines.sqlite import SqliteEngine
from ropeway.runtime import App, Context, WorkerOptions, given, run_worker, worker
from ropeway.runtime.link import SupervisorLink

__all__ = ["SESSION_TTL_MS", "app"]

SESSION_TTL_MS = 60_000  # so long that only a supervisor's word brings a dead worker's jobs back within a test

app = App()


@app.task
async def echo(n: int) -> int:
    return n


@app.task
async def die_once(*, ctx: Context = given) -> int:
    """Takes its worker with it, the first time."""
    if ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return ctx.attempt


@app.task
def wait_for(path: str, *, ctx: Context = given) -> int:
    """Runs until a file is there."""
    Path(path + ".began").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return ctx.attempt


async def work(database: str) -> None:
    engine = SqliteEngine(database)
    await engine.open()
    try:
        link = SupervisorLink.from_environment()
        await run_worker(app, engine, WorkerOptions(session_ttl_ms=SESSION_TTL_MS), link=link)
    finally:
        await engine.shut()


async def work_deaf(database: str) -> None:
    """A worker on an engine that answers renewals, and nothing else once it has opened a session."""
    engine = SqliteEngine(database)
    await engine.open()

    async def hang(*_: Any) -> Any:
        await asyncio.Event().wait()

    for name in ("lease", "commit", "submit", "close"):
        setattr(engine, name, hang)
    worker.LAST_RESORT_S = 1.0
    options = WorkerOptions(session_ttl_ms=500, safety_poll_s=0.1, grace_s=0.0, upkeep=False)
    await run_worker(app, engine, options)


def deaf() -> None:
    """Comes up, and does not end when asked."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    link = SupervisorLink.from_environment()
    assert link is not None
    link.ready()
    while True:
        time.sleep(1)


def crash_after_up() -> None:
    link = SupervisorLink.from_environment()
    assert link is not None
    link.ready()
    sys.exit(9)


def main(role: str, argument: str) -> None:
    match role:
        case "work":
            asyncio.run(work(argument))
        case "deaf-worker":
            asyncio.run(work_deaf(argument))
        case "deaf":
            deaf()
        case "crash":
            crash_after_up()
        case "exit":
            sys.exit(int(argument))


if __name__ == "__main__":
    main(*sys.argv[1:])

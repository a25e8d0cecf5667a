"""A whole front door as a process of its own, for the tests that attack it: `python front_door.py {options}`.

It has a gateway on a free port, a worker, keys of two tenants, and a job of each. It says where it is in a line of
JSON, and logs everything, at the level DEBUG, to its standard error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

from ropeway import App, Client, ModelCard, Worker, WorkerOptions, connect
from ropeway.cli.loops import run_loop
from ropeway.client.keyring import KeyRing
from ropeway.domain.caller import Scope
from ropeway.domain.chat import ChatRequest
from ropeway.serving import Gateway, GatewayOptions
from ropeway.serving.server import ServerOptions, serve

__all__: list[str] = []

app = App()


@app.task
async def greet(name: str, times: int = 1) -> str:
    return f"Hello {name}" * min(times, 10)


@app.task
async def break_down(text: str) -> str:
    raise ValueError(f"could not do {text}")


@app.task
async def tell(text: str) -> AsyncIterator[str]:
    for word in text.split():
        yield word


@app.task
def die(text: str) -> str:
    """Takes its worker with it."""
    os.kill(os.getpid(), signal.SIGKILL)
    return text


@app.task(queue="nobody")
async def wait(text: str = "") -> str:
    """Has no worker."""
    return text


@app.task(models=[ModelCard("parrot", "chat")])
async def chat(request: ChatRequest) -> AsyncIterator[str]:
    yield f"You said {request.messages[-1].get('content')}"


async def main(url: str, keys: bool = True, worker: bool = True, **options: Any) -> None:
    engine = connect(url)
    await engine.open()
    await engine.publish(app.cards)
    tokens = {}
    for tenant in ("acme", "rival") if keys else ():
        _, tokens[tenant] = await KeyRing(engine).create("tester", tenant=tenant, scopes=frozenset(Scope))
        client = Client(engine, tenant=tenant)
        await client.submit("wait", text=f"the secret of {tenant}")
    runner = Worker(app, engine, WorkerOptions(concurrency=20, queues=("default",)))
    running = asyncio.create_task(runner.run()) if worker else None
    gateway = Gateway(engine, GatewayOptions(**options), {name: task.check for name, task in app.tasks.items()})
    await serve(
        gateway,
        port=0,
        options=ServerOptions(header_deadline_s=1.0),
        on_ready=lambda server: print(json.dumps({"port": server.port, "keys": tokens}), flush=True),
    )
    if running is not None:
        runner.drain()
        await running
    await engine.shut()


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    run_loop(main(**json.loads(sys.argv[1])))

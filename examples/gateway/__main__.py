"""`python -m examples.gateway`: the gateway, and a simulated provider when none is named, in one command."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import Annotated, Any, Literal

import msgspec
import typer
import uvicorn

from examples.gateway.settings import GatewaySettings, settings
from examples.gateway.upstream import Rhythm, simulated
from examples.gateway.web import application
from ropeway import RopewayError
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.models.store import CHAT_MODEL

__all__ = ["main"]

GRACE_S = 10  # at a stop, for the answers that are on their way


def main(
    engine: Annotated[str, typer.Option(help="memory: is direct; sqlite:PATH or redis://HOST is queued.")] = "memory:",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8002,
    upstream: Annotated[str | None, typer.Option(help="The provider's base URL; a simulated one if not told.")] = None,
    key: Annotated[str | None, typer.Option(help="Where its key is: env:NAME or file:PATH.")] = None,
    models: Annotated[str | None, typer.Option(help="Ids of models, with commas.")] = None,
    code: Annotated[Literal["async", "blocking", "local"] | None, typer.Option(help="How it is asked: async.")] = None,
    in_flight: Annotated[int | None, typer.Option(min=1, help="At the provider at once: 400.")] = None,
    max_waiting: Annotated[int | None, typer.Option(min=1, help="In line: 1,000; the next is answered 503.")] = None,
    worker: Annotated[bool, typer.Option(help="Run the requests in this process; else start workers.")] = True,
) -> None:
    """Serve `POST /ai` on 127.0.0.1. What no flag tells is read from the environment, GATEWAY_*."""
    told: dict[str, Any] = {
        "upstream": upstream,
        "key": key,
        "models": tuple(model.strip() for model in models.split(",")) if models else None,
        "code": code,
        "in_flight": in_flight,
        "max_waiting": max_waiting,
    }
    own = msgspec.structs.replace(settings(), **{name: value for name, value in told.items() if value is not None})
    if own.code == "local" and own.models == GatewaySettings().models:
        own = msgspec.structs.replace(own, models=(CHAT_MODEL,))
    tune_interpreter()
    try:
        run_loop(_serve(own, engine, port, worker))
    except (RopewayError, OSError) as error:
        typer.secho(f"gateway: {error}", fg="red", err=True)
        raise typer.Exit(1) from error


async def _serve(own: GatewaySettings, engine: str, port: int, worker: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if own.upstream is None and own.code != "local" and worker:
            url, _ = await stack.enter_async_context(simulated(Rhythm()))
            own = msgspec.structs.replace(own, upstream=url)
        web = application(own, engine, worker=worker)
        await stack.enter_async_context(
            web.router.lifespan_context(web)
        )  # here, so that what is wrong is told in a line
        config = uvicorn.Config(web, lifespan="off", log_level="warning", ws="none", timeout_graceful_shutdown=GRACE_S)
        with socket.create_server(("127.0.0.1", port), backlog=2_048) as listening:  # from here on nobody is refused
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            sys.stdout.write(
                msgspec.json.encode({"url": url, "engine": engine, "upstream": own.upstream}).decode() + "\n"
            )
            sys.stdout.flush()
            await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    typer.run(main)

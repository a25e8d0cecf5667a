"""`python -m examples.websocket_chat`: the page, a gateway and workers, in one command."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

import typer

from examples.hosting import renewer_of, told_in_a_line
from examples.websocket_chat.gateway import origins, serve
from examples.websocket_chat.settings import ECHO, ChatSettings
from ropeway import WorkerOptions
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.runtime.child import ChildSpec
from ropeway.runtime.supervisor import Supervisor

__all__ = ["main"]

GRACE_S = 30.0  # for answers in flight at a stop; the rest is given back and begun anew at the next start
GRACE_MARGIN_S = 10.0


def main(
    engine: Annotated[str, typer.Option(help="sqlite:PATH, redis://HOST, or memory:, one process.")] = "sqlite:chat.db",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8004,
    peers: Annotated[str, typer.Option(help="Other gateways on the same engine, with commas between.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow an address that others can reach.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    model: Annotated[str, typer.Option(help="`echo` answers without one; or the id of a model.")] = ECHO,
    upstream: Annotated[str, typer.Option(help="Base URL of an OpenAI-compatible API that serves it.")] = "",
    key: Annotated[str, typer.Option(help="Where that API's key is: env:NAME or file:PATH.")] = "",
    word: Annotated[float, typer.Option(min=0, help="Seconds between two words of the echo.")] = 0.06,
    max_queued: Annotated[int, typer.Option(min=1, help="Questions that may wait.")] = 1_000,
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What to log.")] = "warning",
) -> None:
    """Serve a chat page whose answers stream through the queue, and go on after a reload or on another gateway."""
    own = ChatSettings(model, upstream, key, word, max_queued)
    start_logging(log_level, "chat")
    with told_in_a_line("chat"):
        check_bind(host, insecure)
        port = probe_port(host, port)
        others = origins(peers)
        os.environ.update(own.environment())
        if engine.startswith("memory:"):
            tune_interpreter()
            run_loop(serve(engine, host, port, own, peers=others, worker=WorkerOptions(name="worker-1")))
        else:
            raise typer.Exit(_supervise(engine, host, port, ",".join(others), workers, log_level))


def _supervise(engine: str, host: str, port: int, peers: str, workers: int, log_level: str) -> int:
    """Keep the processes running until told to stop. This one runs no code of the application."""
    common = ("--engine", engine, "--log-level", log_level)
    where = ("--host", host, "--port", str(port), "--peers", peers, "--insecure")  # checked here already
    gateway = (sys.executable, "-m", "examples.websocket_chat.gateway", *where, *common)
    children = [ChildSpec("gateway", gateway)]
    for number in range(1, workers + 1):
        name = f"worker-{number}"
        worker = (sys.executable, "-m", "ropeway", "worker", "examples.websocket_chat.tasks:app")
        children.append(ChildSpec(name, (*worker, "--name", name, "--grace", str(GRACE_S), *common)))
    return Supervisor(children, renewer_of(engine), grace_s=GRACE_S + GRACE_MARGIN_S).run()


if __name__ == "__main__":
    typer.run(main)

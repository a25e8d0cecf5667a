"""`python -m examples.websocket_chat`: the page, a gateway and workers, in one command."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

from examples.hosting import supervise, told_in_a_line
from examples.websocket_chat.gateway import origins, serve
from examples.websocket_chat.settings import ECHO, ChatSettings
from ropeway import WorkerOptions
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port

__all__ = ["main"]


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
            where = (
                "--host",
                host,
                "--port",
                str(port),
                "--peers",
                ",".join(others),
                "--insecure",
            )  # checked here already
            raise typer.Exit(supervise("examples.websocket_chat", engine, where, workers, log_level))


if __name__ == "__main__":
    typer.run(main)

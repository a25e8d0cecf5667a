"""`python -m examples.rag`: the routes, and workers with the models, in one command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from examples.hosting import supervise, told_in_a_line
from examples.rag.gateway import serve
from examples.rag.settings import settings
from examples.rag.store import StoreFailed, open_store
from ropeway import WorkerOptions
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.models.llama import spare_threads

__all__ = ["main"]


def main(
    engine: Annotated[str, typer.Option(help="sqlite:PATH, redis://HOST, or memory:, one process.")] = "sqlite:rag.db",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8005,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow an address that others can reach.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes; each opens its models once.")] = 1,
    documents: Annotated[Path | None, typer.Option(help="The folder that may be ingested; ours if not told.")] = None,
    store: Annotated[str | None, typer.Option(help="sqlite:PATH or postgresql://…, for passages and vectors.")] = None,
    model: Annotated[str | None, typer.Option(help="The chat model's id.")] = None,
    upstream: Annotated[str | None, typer.Option(help="Base URL of an OpenAI-compatible API that serves it.")] = None,
    key: Annotated[str | None, typer.Option(help="Where that API's key is: env:NAME or file:PATH.")] = None,
    max_queued: Annotated[int | None, typer.Option(min=1, help="Questions that may wait: 1,000.")] = None,
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What to log.")] = "warning",
) -> None:
    """Answer questions from documents. What no flag tells is read from the environment, RAG_*."""
    told: dict[str, Any] = {
        "documents": None if documents is None else str(documents),
        "store": store,
        "model": model,
        "upstream": upstream,
        "key": key,
        "max_queued": max_queued,
    }
    own = msgspec.structs.replace(settings(), **{name: value for name, value in told.items() if value is not None})
    if not own.threads:  # these threads spin: two workers that each take all cores starve each other
        own = msgspec.structs.replace(own, threads=max(1, spare_threads() // workers))
    start_logging(log_level, "rag")
    with told_in_a_line("rag", StoreFailed):
        check_bind(host, insecure)
        port = probe_port(host, port)
        open_store(own.store).close()  # what is wrong with it is told here, once
        os.environ.update(own.environment())
        if engine.startswith("memory:"):
            tune_interpreter()
            run_loop(serve(engine, host, port, own, worker=WorkerOptions(name="worker-1")))
        else:
            where = ("--host", host, "--port", str(port), "--insecure")  # checked here already
            raise typer.Exit(supervise("examples.rag", engine, where, workers, log_level))


if __name__ == "__main__":
    typer.run(main)

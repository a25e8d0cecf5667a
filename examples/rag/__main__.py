"""`python -m examples.rag`: the routes, and workers with the models, in one command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from examples.hosting import renewer_of, told_in_a_line
from examples.rag.gateway import serve
from examples.rag.settings import settings
from examples.rag.store import StoreFailed, open_store
from ropeway import WorkerOptions
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.models.llama import spare_threads
from ropeway.runtime.child import ChildSpec
from ropeway.runtime.supervisor import Supervisor

__all__ = ["main"]

GRACE_S = 30.0  # for answers in flight at a stop; the rest is given back and begun anew at the next start
GRACE_MARGIN_S = 10.0


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
            raise typer.Exit(_supervise(engine, host, port, workers, log_level))


def _supervise(engine: str, host: str, port: int, workers: int, log_level: str) -> int:
    """Keep the processes running until told to stop. This one runs no code of the application."""
    common = ("--engine", engine, "--log-level", log_level)
    where = ("--host", host, "--port", str(port), "--insecure")  # checked here already
    gateway = (sys.executable, "-m", "examples.rag.gateway", *where, *common)
    children = [ChildSpec("gateway", gateway)]
    for number in range(1, workers + 1):
        name = f"worker-{number}"
        worker = (sys.executable, "-m", "ropeway", "worker", "examples.rag.tasks:app")
        children.append(ChildSpec(name, (*worker, "--name", name, "--grace", str(GRACE_S), *common)))
    return Supervisor(children, renewer_of(engine), grace_s=GRACE_S + GRACE_MARGIN_S).run()


if __name__ == "__main__":
    typer.run(main)

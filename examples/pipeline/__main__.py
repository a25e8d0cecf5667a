"""`python -m examples.pipeline`: a gateway with the pipeline's routes, and its workers, in one command."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

import typer

from examples.hosting import renewer_of, told_in_a_line
from examples.pipeline.gateway import serve
from examples.pipeline.settings import THREADS_PER_REQUEST, PipelineSettings
from ropeway import WorkerOptions
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.runtime.child import ChildSpec
from ropeway.runtime.supervisor import Supervisor

__all__ = ["main"]

GRACE_S = 30.0  # for requests in flight to finish at a stop; the rest is given back and goes on at the next start
GRACE_MARGIN_S = 10.0


def main(
    engine: Annotated[
        str, typer.Option(help="sqlite:PATH, redis://HOST, or memory:, one process.")
    ] = "sqlite:pipeline.db",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8001,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow an address that others can reach.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="Requests in flight in each, two threads each.")] = 1_000,
    step1: Annotated[float, typer.Option(min=0, help="Seconds that the first step takes.")] = 2.5,
    step2: Annotated[float, typer.Option(min=0, help="Seconds that the second takes, beside it.")] = 1.0,
    mode: Annotated[Literal["thread", "async"], typer.Option(help="Blocking steps, or coroutines.")] = "thread",
    max_queued: Annotated[int, typer.Option(min=1, help="Requests that may wait, for each worker.")] = 100_000,
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What to log.")] = "warning",
) -> None:
    """Serve the pipeline: `workers` x `threads` requests truly in flight at once, on one machine."""
    settings = PipelineSettings(step1, step2, mode, max_queued * workers)
    start_logging(log_level, "pipeline")
    with told_in_a_line("pipeline"):
        check_bind(host, insecure)
        port = probe_port(host, port)
        os.environ.update(settings.environment())
        if engine.startswith("memory:"):
            _in_one_process(engine, host, port, settings, workers * threads)
        else:
            raise typer.Exit(_supervise(engine, host, port, workers, threads, log_level))


def _in_one_process(engine: str, host: str, port: int, settings: PipelineSettings, slots: int) -> None:
    tune_interpreter()
    options = WorkerOptions(name="worker-1", concurrency=slots, threads=slots * THREADS_PER_REQUEST, grace_s=GRACE_S)
    run_loop(serve(engine, host, port, settings, options))


def _supervise(engine: str, host: str, port: int, workers: int, threads: int, log_level: str) -> int:
    """Keep the processes running until told to stop. This one runs no code of the application."""
    common = ("--engine", engine, "--log-level", log_level)
    where = ("--host", host, "--port", str(port), "--insecure")  # checked here already
    gateway = (sys.executable, "-m", "examples.pipeline.gateway", *where, *common)
    children = [ChildSpec("gateway", gateway)]
    for number in range(1, workers + 1):
        name = f"worker-{number}"
        sizes = ("--concurrency", str(threads), "--threads", str(threads * THREADS_PER_REQUEST))
        worker = (sys.executable, "-m", "ropeway.cli.main", "worker", "examples.pipeline.tasks:app", *sizes)
        children.append(ChildSpec(name, (*worker, "--name", name, "--grace", str(GRACE_S), *common)))
    return Supervisor(children, renewer_of(engine), grace_s=GRACE_S + GRACE_MARGIN_S).run()


if __name__ == "__main__":
    typer.run(main)

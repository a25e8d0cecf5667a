"""A gateway: `python -m examples.pipeline.gateway`, as `python -m examples.pipeline` starts it, or by itself."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from examples.hosting import serve_until_told, told_in_a_line
from examples.pipeline.settings import THREADS_PER_REQUEST, PipelineSettings, settings
from examples.pipeline.web import PipelineWeb
from ropeway import WorkerOptions
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.serving import GatewayOptions, hosts_for

__all__ = ["serve"]


async def serve(engine_url: str, host: str, port: int, own: PipelineSettings, worker: WorkerOptions | None) -> None:
    """Serve until SIGTERM or SIGINT, or until the supervisor is gone. Raises OSError when the address cannot be had."""
    options = GatewayOptions(allowed_hosts=hosts_for(host))
    await serve_until_told(
        engine_url, host, port, lambda engine, link: PipelineWeb(engine, own, options, worker, link), _greet
    )


def main(
    engine: Annotated[str, typer.Option(help="Where the requests live.")] = "sqlite:pipeline.db",
    host: str = "127.0.0.1",
    port: int = 8001,
    slots: Annotated[int, typer.Option(help="Run so many requests at once in this process too.")] = 0,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow an address that others can reach.")] = False,
    log_level: str = "warning",
) -> None:
    """Serve the pipeline's routes; start as many as you like. Its settings are in the environment, PIPELINE_*."""
    start_logging(log_level, "gateway")
    tune_interpreter()
    worker = WorkerOptions(name="worker-1", concurrency=slots, threads=slots * THREADS_PER_REQUEST) if slots else None
    with told_in_a_line("pipeline"):
        check_bind(host, insecure)
        run_loop(serve(engine, host, probe_port(host, port), settings(), worker))


def _greet(url: str, engine_url: str) -> None:
    if not sys.stdout.isatty():
        sys.stdout.write(f'{{"ready":true,"url":"{url}","engine":"{engine_url}"}}\n')
        sys.stdout.flush()
        return
    body = '{"id": "order-1", "text": "hello big world"}'
    Console().print(
        f"\n[bold]The pipeline[/] is served at [cyan]{url}[/], on {engine_url}\n\n"
        f"  curl -s {url}/process -H 'content-type: application/json' -d '{body}'\n"
        f"  curl -sNL {url}/status/order-1/events   [dim]follow it live[/]\n"
        f"  curl -s {url}/status/order-1            [dim]what is stored[/]\n\n"
        f"  {url}/queue-status  /thread-efficiency  /database/stats  /metrics/series  /sizing\n"
        f"  {url}/docs   [dim]Ropeway's own API, below the same root[/]\n"
        f"  python -m examples.pipeline.load --url {url}   [dim]1,000 requests, and a report[/]\n",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)

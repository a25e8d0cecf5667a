"""A gateway with the example's routes: `python -m examples.rag.gateway`; start as many as you like on one engine."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from examples.hosting import serve_until_told, told_in_a_line
from examples.rag.settings import RagSettings, settings
from examples.rag.store import StoreFailed
from examples.rag.web import RagWeb
from ropeway import GatewayOptions, WorkerOptions
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.models.store import MODELS
from ropeway.serving import hosts_for

__all__ = ["main", "serve"]


async def serve(
    engine_url: str, host: str, port: int, own: RagSettings, *, worker: WorkerOptions | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, or until the supervisor is gone. Raises OSError when the address cannot be had."""
    await serve_until_told(
        engine_url,
        host,
        port,
        lambda engine, _: RagWeb(engine, own, GatewayOptions(allowed_hosts=hosts_for(host)), worker=worker),
        lambda url, engine: _greet(url, engine, own),
    )


def main(
    engine: Annotated[str, typer.Option(help="Where the jobs live.")] = "sqlite:rag.db",
    host: str = "127.0.0.1",
    port: int = 8005,
    worker: Annotated[bool, typer.Option("--worker", help="Answer in this process too.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow an address that others can reach.")] = False,
    log_level: str = "warning",
) -> None:
    """Serve the routes. The settings of the example are in the environment, RAG_*."""
    start_logging(log_level, "gateway")
    tune_interpreter()
    with told_in_a_line("rag", StoreFailed):
        check_bind(host, insecure)
        runs = WorkerOptions(name="worker-1") if worker else None
        run_loop(serve(engine, host, probe_port(host, port), settings(), worker=runs))


def _greet(url: str, engine_url: str, own: RagSettings) -> None:
    if not sys.stdout.isatty():
        told = {"ready": True, "url": url, "engine": engine_url, "model": own.model}
        sys.stdout.write(f"{msgspec.json.encode(told).decode()}\n")
        sys.stdout.flush()
        return
    about = own.upstream or f"{MODELS[own.model].about if own.model in MODELS else own.model}; small, often wrong"
    post = "-H 'content-type: application/json' -d"
    Console().print(
        f"\n[bold]Answers from documents[/] at [cyan]{url}[/], on {engine_url}\nModel: {about}\n\n"
        f"  curl -s {url}/ingest {post} '{{}}'\n"
        f'  curl -s {url}/chat {post} \'{{"query": "How strong is the main engine?"}}\'\n'
        f"  curl -s '{url}/job-status?job_id=job_…'\n"
        f"  curl -sN {url}/v1/jobs/job_…/events   [dim]as it is written[/]\n"
        f"  {url}/docs   [dim]Ropeway's own API, below the same root[/]\n",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)

"""A gateway with the example's routes: `python -m examples.rag.gateway`; start as many as you like on one engine."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, cast

import msgspec
import typer
from rich.console import Console

from examples.rag.settings import RagSettings, settings
from examples.rag.store import StoreFailed
from examples.rag.web import RagWeb
from ropeway import GatewayOptions, InvalidRequest, RopewayError, WorkerOptions, connect
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.models.store import MODELS
from ropeway.runtime.link import SupervisorLink
from ropeway.serving import Gateway, hosts_for
from ropeway.serving.server import Server

__all__ = ["main", "serve", "told_in_a_line"]


async def serve(
    engine_url: str, host: str, port: int, own: RagSettings, *, worker: WorkerOptions | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, or until the supervisor is gone. Raises OSError when the address cannot be had."""
    engine = connect(engine_url)
    await engine.open()
    try:
        link = SupervisorLink.from_environment()
        web = RagWeb(engine, own, GatewayOptions(allowed_hosts=hosts_for(host)), worker=worker)
        # the server asks for a gateway, and uses of it what RagWeb has too: start, drain, stop and its options
        async with Server(cast(Gateway, web), host, port) as server:
            stopping = asyncio.Event()
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)
            if link is not None:
                link.when_gone(lambda: _in(loop, stopping))
                link.ready()
            _greet(server.url, engine.info.url, own)
            await stopping.wait()
    finally:
        await engine.shut()


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
    with told_in_a_line():
        check_bind(host, insecure)
        runs = WorkerOptions(name="worker-1") if worker else None
        run_loop(serve(engine, host, probe_port(host, port), settings(), worker=runs))


@contextlib.contextmanager
def told_in_a_line() -> Iterator[None]:
    """What is wrong, and an exit code: 2 when it is the command itself, else 1."""
    try:
        yield
    except (RopewayError, StoreFailed) as error:
        typer.secho(f"rag: {error}", fg="red", err=True)
        raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1) from error


def _in(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: too late to matter
        loop.call_soon_threadsafe(event.set)


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

"""A gateway: `python -m examples.pipeline.gateway`, as `python -m examples.pipeline` starts it, or by itself."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, cast

import typer
from rich.console import Console

from examples.pipeline.settings import THREADS_PER_REQUEST, PipelineSettings, settings
from examples.pipeline.web import PipelineWeb
from ropeway import InvalidRequest, RopewayError, WorkerOptions, connect
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.runtime.link import SupervisorLink
from ropeway.serving import Gateway, GatewayOptions, hosts_for
from ropeway.serving.server import Server

__all__ = ["serve", "told_in_a_line"]


async def serve(engine_url: str, host: str, port: int, own: PipelineSettings, worker: WorkerOptions | None) -> None:
    """Serve until SIGTERM or SIGINT, or until the supervisor is gone. Raises OSError when the address cannot be had."""
    engine = connect(engine_url)
    await engine.open()
    try:
        link = SupervisorLink.from_environment()
        web = PipelineWeb(engine, own, GatewayOptions(allowed_hosts=hosts_for(host)), worker, link)
        # the server asks for a gateway, and uses of it what PipelineWeb has too: start, drain, stop and its options
        async with Server(cast(Gateway, web), host, port) as server:
            stopping = _asked_to_stop()
            if link is not None:
                loop = asyncio.get_running_loop()
                link.when_gone(lambda: _in(loop, stopping.set))
                link.ready()
            _greet(server.url, engine.info.url)
            await stopping.wait()
    finally:
        await engine.shut()


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
    with told_in_a_line():
        check_bind(host, insecure)
        run_loop(serve(engine, host, probe_port(host, port), settings(), worker))


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """What is wrong, and an exit code: 2 when it is the command itself, else 1."""
    try:
        yield
    except RopewayError as error:
        typer.secho(f"pipeline: {error}", fg="red", err=True)
        raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1) from error


def _asked_to_stop() -> asyncio.Event:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    return asked


def _in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(call)


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

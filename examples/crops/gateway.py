"""A gateway with the page: `python -m examples.crops.gateway`; start as many as you like on one engine."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, cast

import msgspec
import typer

from examples.crops.settings import CropsSettings, settings
from examples.crops.web import CropsWeb
from ropeway import GatewayOptions, InvalidRequest, RopewayError, WorkerOptions, connect
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.config import load_settings
from ropeway.runtime.link import SupervisorLink
from ropeway.serving import Gateway, hosts_for
from ropeway.serving.server import Server

__all__ = ["main", "serve", "told_in_a_line"]


async def serve(
    engine_url: str,
    host: str,
    port: int,
    own: CropsSettings,
    *,
    blobs: str | None = None,
    worker: WorkerOptions | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until the supervisor is gone. Raises OSError when the address cannot be had."""
    engine = connect(engine_url)
    await engine.open()
    try:
        link = SupervisorLink.from_environment()
        allow = load_settings({}).webhooks.allow
        options = GatewayOptions(allowed_hosts=hosts_for(host), webhook_allow=allow, max_file_bytes=own.max_bytes)
        web = CropsWeb(engine, own, options, worker=worker, blobs=blobs)
        # the server asks for a gateway, and uses of it what CropsWeb has too: start, drain, stop and its options
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
    engine: Annotated[str, typer.Option(help="Where the jobs live.")] = "sqlite:crops.db",
    blobs: Annotated[str, typer.Option(help="Where images are; beside a SQLite file when not said.")] = "",
    host: str = "127.0.0.1",
    port: int = 8006,
    worker: Annotated[bool, typer.Option("--worker", help="Analyse in this process too.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow an address that others can reach.")] = False,
    log_level: str = "warning",
) -> None:
    """Serve the page and the routes. The example's settings are in the environment, CROPS_*."""
    start_logging(log_level, "gateway")
    tune_interpreter()
    with told_in_a_line():
        check_bind(host, insecure)
        runs = WorkerOptions(name="worker-1") if worker else None
        run_loop(serve(engine, host, probe_port(host, port), settings(), blobs=blobs or None, worker=runs))


@contextlib.contextmanager
def told_in_a_line() -> Iterator[None]:
    """What is wrong, and an exit code: 2 when it is the command itself, else 1."""
    try:
        yield
    except RopewayError as error:
        typer.secho(f"crops: {error}", fg="red", err=True)
        raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1) from error


def _in(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: too late to matter
        loop.call_soon_threadsafe(event.set)


def _greet(url: str, engine_url: str, own: CropsSettings) -> None:
    if sys.stdout.isatty():
        typer.echo(f"\nCrop analysis at {url}   (on {engine_url}, results in {own.results})\n\nCtrl-C ends it.\n")
    else:
        told = msgspec.json.encode({"ready": True, "url": url, "engine": engine_url}).decode()
        sys.stdout.write(f"{told}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)

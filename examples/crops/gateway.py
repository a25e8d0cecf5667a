"""A gateway with the page: `python -m examples.crops.gateway`; start as many as you like on one engine."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from examples.crops.settings import CropsSettings, settings
from examples.crops.web import CropsWeb
from examples.hosting import serve_until_told, told_in_a_line
from ropeway import GatewayOptions, WorkerOptions
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.config import load_settings
from ropeway.serving import hosts_for

__all__ = ["main", "serve"]


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
    allow = load_settings({}).webhooks.allow
    options = GatewayOptions(allowed_hosts=hosts_for(host), webhook_allow=allow, max_file_bytes=own.max_bytes)
    await serve_until_told(
        engine_url,
        host,
        port,
        lambda engine, _: CropsWeb(engine, own, options, worker=worker, blobs=blobs),
        lambda url, engine: _greet(url, engine, own),
    )


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
    with told_in_a_line("crops"):
        check_bind(host, insecure)
        runs = WorkerOptions(name="worker-1") if worker else None
        run_loop(serve(engine, host, probe_port(host, port), settings(), blobs=blobs or None, worker=runs))


def _greet(url: str, engine_url: str, own: CropsSettings) -> None:
    if sys.stdout.isatty():
        typer.echo(f"\nCrop analysis at {url}   (on {engine_url}, results in {own.results})\n\nCtrl-C ends it.\n")
    else:
        told = msgspec.json.encode({"ready": True, "url": url, "engine": engine_url}).decode()
        sys.stdout.write(f"{told}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)

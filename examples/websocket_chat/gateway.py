"""A gateway with the page: `python -m examples.websocket_chat.gateway`; start as many as you like on one engine."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from examples.hosting import serve_until_told, told_in_a_line
from examples.websocket_chat.settings import ChatSettings, settings
from examples.websocket_chat.web import ChatWeb
from ropeway import GatewayOptions, InvalidRequest, WorkerOptions
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.serving import hosts_for

__all__ = ["main", "origins", "serve"]


async def serve(
    engine_url: str,
    host: str,
    port: int,
    own: ChatSettings,
    *,
    peers: tuple[str, ...] = (),
    worker: WorkerOptions | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until the supervisor is gone. Raises OSError when the address cannot be had."""
    options = GatewayOptions(allowed_hosts=hosts_for(host), allowed_origins=peers)
    await serve_until_told(
        engine_url,
        host,
        port,
        lambda engine, _: ChatWeb(engine, own, options, peers=peers, worker=worker),
        lambda url, engine: _greet(url, engine, own),
    )


def main(
    engine: Annotated[str, typer.Option(help="Where the conversation's jobs live.")] = "sqlite:chat.db",
    host: str = "127.0.0.1",
    port: int = 8004,
    peers: Annotated[str, typer.Option(help="Other gateways: http://HOST:PORT, with commas between.")] = "",
    worker: Annotated[bool, typer.Option("--worker", help="Answer in this process too.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow an address that others can reach.")] = False,
    log_level: str = "warning",
) -> None:
    """Serve the page and the gateway. The settings of the chat are in the environment, CHAT_*."""
    start_logging(log_level, "gateway")
    tune_interpreter()
    with told_in_a_line("chat"):
        check_bind(host, insecure)
        runs = WorkerOptions(name="worker-1") if worker else None
        run_loop(serve(engine, host, probe_port(host, port), settings(), peers=origins(peers), worker=runs))


def origins(text: str) -> tuple[str, ...]:
    """Origins, as told with commas between. Raises InvalidRequest for what is none."""
    found = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for origin in found:
        scheme, _, rest = origin.partition("://")
        if scheme not in ("http", "https") or not rest or "/" in rest or " " in rest or ";" in rest:
            raise InvalidRequest(f"{origin!r} is no origin: http://HOST:PORT", param="peers")
    return found


def _greet(url: str, engine_url: str, own: ChatSettings) -> None:
    if sys.stdout.isatty():
        typer.echo(f"\nChat at {url}   (model {own.model}, on {engine_url})\n\nCtrl-C ends it.\n")
    else:
        told = msgspec.json.encode({"ready": True, "url": url, "engine": engine_url}).decode()
        sys.stdout.write(f"{told}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)

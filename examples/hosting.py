"""What the examples' own gateways and commands have in common: served until told to stop, and errors in a line."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import typer

from ropeway import InvalidRequest, RopewayError, connect
from ropeway.cli.loops import run_loop
from ropeway.engines.base import Engine, Renewer
from ropeway.runtime.child import ChildSpec
from ropeway.runtime.link import SupervisorLink
from ropeway.runtime.supervisor import Supervisor
from ropeway.serving import Gateway
from ropeway.serving.server import Server

__all__ = ["renewer_of", "serve_until_told", "supervise", "told_in_a_line"]

GRACE_S = 30.0  # for answers in flight at a stop; the rest is given back and begun anew at the next start
GRACE_MARGIN_S = 10.0


async def serve_until_told(
    engine_url: str,
    host: str,
    port: int,
    make: Callable[[Engine, SupervisorLink | None], Any],
    greet: Callable[[str, str], None],
) -> None:
    """Serve what `make` gives until SIGTERM or SIGINT, or until the supervisor is gone; `greet` is told both URLs.

    Raises OSError when the address cannot be had.
    """
    engine = connect(engine_url)
    await engine.open()
    try:
        link = SupervisorLink.from_environment()
        web = make(engine, link)
        # the server asks for a gateway, and uses of it what the examples' own have too: start, drain, stop, its options
        async with Server(cast(Gateway, web), host, port) as server:
            stopping = asyncio.Event()
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)
            if link is not None:
                link.when_gone(lambda: _in(loop, stopping))
                link.ready()
            greet(server.url, engine.info.url)
            await stopping.wait()
    finally:
        await engine.shut()


def supervise(package: str, engine: str, where: Sequence[str], workers: int, log_level: str) -> int:
    """Keep a package's gateway and so many workers running until told to stop; the exit code.

    This process runs no code of the application. `where`: what the gateway is told besides the engine.
    """
    common = ("--engine", engine, "--log-level", log_level)
    children = [ChildSpec("gateway", (sys.executable, "-m", f"{package}.gateway", *where, *common))]
    for number in range(1, workers + 1):
        name = f"worker-{number}"
        worker = (sys.executable, "-m", "ropeway", "worker", f"{package}.tasks:app")
        children.append(ChildSpec(name, (*worker, "--name", name, "--grace", str(GRACE_S), *common)))
    return Supervisor(children, renewer_of(engine), grace_s=GRACE_S + GRACE_MARGIN_S).run()


@contextlib.contextmanager
def told_in_a_line(name: str, *kinds: type[Exception]) -> Iterator[None]:
    """What is wrong, ours or of these kinds, and an exit code: 2 when it is the command itself, else 1."""
    told: tuple[type[Exception], ...] = (RopewayError, *kinds)
    try:
        yield
    except told as error:
        typer.secho(f"{name}: {error}", fg="red", err=True)
        raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1) from error


def renewer_of(url: str) -> Renewer:
    """A renewer on the store, which is made here first: what is wrong with it is told once."""
    engine = connect(url)

    async def make() -> None:
        await engine.open()
        await engine.shut()

    run_loop(make())
    return engine.renewer()


def _in(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: too late to matter
        loop.call_soon_threadsafe(event.set)

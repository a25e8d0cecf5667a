"""The options that commands share, written once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ropeway.cli.engine import engine_file, require_store, shown
from ropeway.cli.loops import run_loop
from ropeway.cli.output import told_when_slow
from ropeway.client import Client
from ropeway.config import load_settings
from ropeway.domain.errors import InvalidRequest

__all__ = ["ApiKey", "Config", "EngineUrl", "GatewayUrl", "JsonLines", "with_client"]

T = TypeVar("T")

EngineUrl = Annotated[
    str | None,
    typer.Option(
        "--engine", "-e", metavar="URL", help="Engine: sqlite:PATH, redis://HOST, … [default: sqlite:ropeway.db]"
    ),
]
GatewayUrl = Annotated[
    str | None, typer.Option("--url", "-u", metavar="URL", help="Talk to this gateway instead: http://127.0.0.1:8000")
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar="ROPEWAY_KEY",
        help="What the gateway asks for: rw_…; better in the environment, which others do not see.",
    ),
]
JsonLines = Annotated[
    bool | None,
    typer.Option(
        "--json/--text", help="JSON lines, or text for people. [default: JSON when piped]", show_default=False
    ),
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings file. [default: ropeway.toml, if it is there]")
]


def with_client(
    engine: str | None,
    url: str | None,
    config: Path | None,
    work: Callable[[Client], Coroutine[Any, Any, T]],
    key: str | None = None,
    *,
    makes_store: bool = False,
) -> T:
    """Run `work` with an open client of the gateway or engine that the options, or else the settings, name.

    `key` is for the gateway; an engine asks for none. `makes_store`: the engine's store need not be there yet.
    """
    if engine and url:
        raise InvalidRequest("--engine and --url are two ways to the same jobs: give one of them")
    settings = load_settings({"engine": engine, "url": url}, path=config)
    target = settings.engine if engine or not settings.url else settings.url
    if target == settings.url and not target.startswith(("http://", "https://")):
        raise InvalidRequest("--url is a gateway's, http://… or https://…; an engine is named with --engine")
    if target == settings.engine and not (makes_store and engine_file(target) is not None):
        require_store(target)

    async def connected() -> T:
        client = Client(target, key=key, blobs=settings.blobs)
        async with told_when_slow(f"no answer yet from {shown(target)}"):
            await client.open()
        try:
            return await work(client)
        finally:
            await client.close()

    return run_loop(connected())

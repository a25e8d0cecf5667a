"""The options that commands share, written once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ropeway.cli.engine import engine_file, require_store, shown
from ropeway.cli.logs import audit_told
from ropeway.cli.loops import run_loop
from ropeway.cli.output import told_when_slow
from ropeway.client import Client
from ropeway.config import Settings, load_settings
from ropeway.domain.errors import InvalidRequest

__all__ = ["ApiKey", "Config", "EngineUrl", "GatewayUrl", "JsonLines", "Reach", "reaching"]

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


class Reach:
    """Where the jobs are that a command is about: behind a gateway or on an engine, as its options say."""

    def __init__(self, engine: str | None, url: str | None, api_key: str | None, config: Path | None) -> None:
        self._engine = engine
        self._url = url
        self._api_key = api_key
        self._config = config

    def run(self, work: Callable[[Client], Coroutine[Any, Any, T]], *, makes_store: bool = False) -> T:
        """Run `work` with an open client of the gateway or engine that the options, or else the settings, name.

        `makes_store`: the engine's store need not be there yet.
        """
        settings = self._settings()
        target = settings.engine if self._engine or not settings.url else settings.url
        if target == settings.url and not target.startswith(("http://", "https://")):
            raise InvalidRequest("--url is a gateway's, http://… or https://…; an engine is named with --engine")
        if target == settings.engine and not (makes_store and engine_file(target) is not None):
            require_store(target)

        async def connected() -> T:
            client = Client(target, key=self._api_key, blobs=settings.blobs)
            async with told_when_slow(f"no answer yet from {shown(target)}"):
                await client.open()
            try:
                return await work(client)
            finally:
                await client.close()

        with audit_told():
            return run_loop(connected())

    def _settings(self) -> Settings:
        if self._engine and self._url:
            raise InvalidRequest("--engine and --url are two ways to the same jobs: give one of them")
        return load_settings({"engine": self._engine, "url": self._url}, path=self._config)


def reaching(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --engine, --url, --api-key and --config; it takes them as one, `reach`."""
    kept = [one for one in signature(command, eval_str=True).parameters.values() if one.name != "reach"]

    @functools.wraps(command)
    def told(*, engine: str | None, url: str | None, api_key: str | None, config: Path | None, **others: Any) -> None:
        command(**others, reach=Reach(engine, url, api_key, config))

    options = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in _REACH.items()]
    told.__signature__ = Signature([*kept, *options])  # type: ignore[attr-defined]  # what a command line is made from
    return told


_REACH = {"engine": EngineUrl, "url": GatewayUrl, "api_key": ApiKey, "config": Config}

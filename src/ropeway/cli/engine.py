"""Commands that work on an engine itself, and what they may say of its file before they open it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from ropeway.cli.loops import run_loop
from ropeway.cli.output import told_when_slow
from ropeway.client.keyring import KeyRing
from ropeway.config import load_settings
from ropeway.domain.errors import InvalidRequest
from ropeway.engines.base import Engine
from ropeway.engines.connect import connect

__all__ = ["engine_file", "has_key", "require_store", "shown", "with_engine"]

T = TypeVar("T")


def with_engine(url: str | None, config: Path | None, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
    """Run `work` with the open engine that `url`, or else the settings, name. It must be there already."""
    target = load_settings({"engine": url}, path=config).engine
    require_store(target)

    async def opened() -> T:
        engine = connect(target)
        async with told_when_slow(f"no answer yet from {engine.info.url}"):
            await engine.open()
        try:
            return await work(engine)
        finally:
            await engine.shut()

    return run_loop(opened())


def has_key(url: str) -> bool:
    """Whether a key was made in this store, so that a gateway on it asks for one."""
    file = engine_file(url)
    if url.partition(":")[0] == "memory" or (file is not None and not file.exists()):
        return False

    async def asked() -> bool:
        engine = connect(url)
        async with told_when_slow(f"no answer yet from {engine.info.url}"):
            await engine.open()
        try:
            return await KeyRing(engine).is_locked()
        finally:
            await engine.shut()

    return run_loop(asked())


def require_store(url: str) -> None:
    """Raises InvalidRequest where a command would look into a store that nobody made: it would find nothing there."""
    if url.partition(":")[0] == "memory":
        raise InvalidRequest("the jobs of memory: live in the process that runs them: ask its gateway with --url")
    file = engine_file(url)
    if file is not None and not file.exists():
        raise InvalidRequest(f"there is no {file} yet; `ropeway up MODULE:APP` makes it, or name another with --engine")


def shown(url: str) -> str:
    """An engine's or a gateway's URL as it may be printed: an engine's without its password."""
    return url if url.startswith(("http://", "https://")) else connect(url).info.url


def engine_file(url: str) -> Path | None:
    """The file that a sqlite URL names; None for other engines."""
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite" or not rest:
        return None
    return Path("/" + rest.lstrip("/") if rest.startswith("///") else rest).absolute()

"""An engine by its URL, open for as long as a driver needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ropeway import connect
from ropeway.engines.base import Engine

__all__ = ["opened"]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Engine]:
    """The engine, shut at the end."""
    engine = connect(url)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.shut()

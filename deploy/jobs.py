"""The application that deploy/Dockerfile puts into its image: replace it with your own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from ropeway import App

__all__ = ["app"]

app = App()


@app.task(timeout=60)
async def chat(question: str, words: int = 8) -> AsyncIterator[str]:
    """Say the question again and again, a word at a time."""
    for _ in range(words):
        await asyncio.sleep(0.05)  # a model would be thinking here
        yield f"{question} "


@app.task(queue="reports", timeout=60)
def report(rows: int) -> int:
    """Blocking work, on a thread."""
    time.sleep(0.01)
    return rows * rows

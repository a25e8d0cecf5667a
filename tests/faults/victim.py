"""The application that the fault tests serve: a task that streams a little, and says each time that it ran."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from ropeway import App, Context, Retry

app = App()

RUNS = Path(os.environ.get("VICTIM_RUNS", os.devnull))


def note(line: str) -> None:
    with RUNS.open("a") as runs:
        runs.write(f"{line}\n")


# Crashes are what the test makes, so no number of them is too many.
@app.task(max_crashes=1_000, retry=Retry(max_attempts=1))
async def spell(word: str, *, ctx: Context) -> AsyncIterator[str]:
    """The word, letter by letter."""
    note(f"{ctx.job_id} {ctx.attempt}")
    for letter in word:
        await asyncio.sleep(0.002)
        yield letter

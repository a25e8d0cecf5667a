"""The application that the fault tests serve: tasks that stream a little, and say each time that they ran."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from ropeway import App, Context, Retry

app = App()

RUNS = Path(os.environ.get("VICTIM_RUNS", os.devnull))
CANCELS = Path(os.environ.get("VICTIM_CANCELS", os.devnull))
ENDLESS = 1_000  # crashes are what the tests make, so no number of them is too many


def note(ctx: Context, file: Path = RUNS) -> None:
    """Tell which attempt began, in which process."""
    with file.open("a") as notes:
        notes.write(f"{ctx.job_id} {ctx.attempt} {os.getpid()}\n")


@app.task(max_crashes=ENDLESS, retry=Retry(max_attempts=1))
async def spell(word: str, *, ctx: Context) -> AsyncIterator[str]:
    """The word, letter by letter."""
    note(ctx)
    for letter in word:
        await asyncio.sleep(0.002)
        yield letter


@app.task(max_crashes=ENDLESS, retry=Retry(max_attempts=1))
async def drawl(word: str, *, ctx: Context) -> AsyncIterator[str]:
    """The word, slowly: long enough to be there when something is killed."""
    note(ctx)
    try:
        for letter in word:
            await asyncio.sleep(0.2)
            yield letter
    except asyncio.CancelledError:
        note(ctx, CANCELS)
        raise


@app.task(max_crashes=1, retry=Retry(max_attempts=1))
async def drawl_once(word: str, *, ctx: Context) -> AsyncIterator[str]:
    """The same, by one worker or by none."""
    note(ctx)
    for letter in word:
        await asyncio.sleep(0.2)
        yield letter


@app.task(max_crashes=ENDLESS, retry=Retry(max_attempts=1), resumable=True)
async def drawl_on(word: str, *, ctx: Context) -> AsyncIterator[str]:
    """The word, slowly, by however many workers, each of which goes on where the one before it was killed."""
    await ctx.step("begin", note, ctx)
    for letter in word[len(ctx.partial or "") :]:
        await asyncio.sleep(0.2)
        yield letter


@app.task(max_crashes=ENDLESS, retry=Retry(max_attempts=1))
async def echo(word: str, *, ctx: Context) -> str:
    """The word, at once."""
    note(ctx)
    return word


@app.task(max_crashes=ENDLESS, retry=Retry(max_attempts=ENDLESS, base_s=0.05, cap_s=0.1))
async def stumble(word: str, *, ctx: Context) -> str:
    """The word, at the second attempt."""
    note(ctx)
    if ctx.attempt == 1:
        raise ValueError("stumbled")
    return word


@app.task(max_crashes=3, retry=Retry(max_attempts=10))
async def poison(word: str, *, ctx: Context) -> None:
    """The end of the worker: by its own `exit`, or else as the kernel kills one that takes too much memory."""
    note(ctx)
    if word == "exit":
        os._exit(1)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(max_crashes=ENDLESS, retry=Retry(max_attempts=1))
async def slow_letter(letter: str, *, ctx: Context) -> str:
    """A letter, after a while."""
    note(ctx)
    await asyncio.sleep(1.0)
    return letter


@app.task(max_crashes=ENDLESS, retry=Retry(max_attempts=1))
async def assemble(word: str, *, ctx: Context) -> str:
    """The word, each letter by a child, when somebody has approved of it."""
    note(ctx)
    letters = [await ctx.submit("slow_letter", letter=letter) for letter in word]
    ending = str(await ctx.wait_input())
    return "".join(await ctx.gather(*letters)) + ending

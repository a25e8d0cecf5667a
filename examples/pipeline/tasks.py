"""The work: two blocking steps side by side, then their results joined. 2.5 s rather than 3.5 s.

`time.sleep` stands for what really blocks: a database, a file, a library that computes outside of Python's lock.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from examples.pipeline.settings import QUEUE, settings
from examples.pipeline.shapes import StepResult, Text
from ropeway import App, Context, Fail, Retry, Task

__all__ = ["Processed", "app", "process", "process_async", "tasks_by_mode"]

SLACK_S = 60.0  # an attempt that takes so much longer than its steps hangs

SETTINGS = settings()

block = time.sleep

app = App()


class Processed(msgspec.Struct, frozen=True):
    """What a request comes to. `seconds`: from the start of its steps to their joined result."""

    step_1: StepResult
    step_2: StepResult
    result: str
    seconds: float


@app.task(
    queue=QUEUE,
    timeout=max(SETTINGS.step1_s, SETTINGS.step2_s) + SLACK_S,
    retry=Retry(max_attempts=3),
    retention=SETTINGS.retention_s,
    failed_retention=SETTINGS.retention_s,
)
async def process(text: Text, *, ctx: Context) -> Processed:
    """Run both steps on the worker's threads, side by side, and join them.

    The request itself waits on the event loop and costs no thread: a worker needs two for each request in flight.
    """
    began_s = time.perf_counter()
    step_1, step_2 = await asyncio.gather(ctx.to_thread(count_words, text), ctx.to_thread(fingerprint, text))
    return join(step_1, step_2, began_s)


@app.task(
    queue=QUEUE,
    timeout=max(SETTINGS.step1_s, SETTINGS.step2_s) + SLACK_S,
    retry=Retry(max_attempts=3),
    retention=SETTINGS.retention_s,
    failed_retention=SETTINGS.retention_s,
)
async def process_async(text: Text) -> Processed:
    """The same work as coroutines: no threads, so one worker holds as many requests as memory bears."""
    began_s = time.perf_counter()
    step_1, step_2 = await asyncio.gather(_later(SETTINGS.step1_s, words, text), _later(SETTINGS.step2_s, digest, text))
    return join(step_1, step_2, began_s)


tasks_by_mode: dict[str, Task[..., Any, Processed]] = {"thread": process, "async": process_async}


def count_words(text: str) -> StepResult:
    """Step 1, blocking."""
    began_s = time.perf_counter()
    found = words(text)
    block(SETTINGS.step1_s)
    return _step(found, began_s)


def fingerprint(text: str) -> StepResult:
    """Step 2, blocking."""
    began_s = time.perf_counter()
    found = digest(text)
    block(SETTINGS.step2_s)
    return _step(found, began_s)


def words(text: str) -> str:
    """How many words, and the longest. Raises Fail for a text without any: trying again would not help."""
    split = text.split()
    if not split:
        raise Fail("the text holds no words")
    return f"{len(split)} words, the longest is {max(split, key=len)!r}"


def digest(text: str) -> str:
    """Which text it was."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def join(step_1: StepResult, step_2: StepResult, began_s: float) -> Processed:
    """The final result, from both steps."""
    result = f"{step_2.found}: {step_1.found}"
    return Processed(step_1, step_2, result, round(time.perf_counter() - began_s, 6))


async def _later(seconds: float, step: Callable[[str], str], text: str) -> StepResult:
    began_s = time.perf_counter()
    found = step(text)
    await asyncio.sleep(seconds)
    return _step(found, began_s)


def _step(found: str, began_s: float) -> StepResult:
    return StepResult(found, threading.current_thread().name, round(time.perf_counter() - began_s, 6))

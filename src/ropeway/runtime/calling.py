"""Calls a blocking task, on a thread of the worker or in a child: its output, streamed if it is a generator."""

from __future__ import annotations

import asyncio
from typing import Any

from ropeway.runtime.attempt import Attempt
from ropeway.runtime.coding import encode_output
from ropeway.runtime.feed import Feed
from ropeway.runtime.task import Task

__all__ = ["call_blocking"]


def call_blocking(
    task: Task[..., Any, Any], arguments: dict[str, Any], attempt: Attempt, feed: Feed | None
) -> str | None:
    """The output as JSON; None when it is what was emitted. A generator is stopped at its next item, when asked to."""
    if not task.streams:
        value = task.fn(**arguments)
        return None if value is None else encode_output(value)
    items = task.fn(**arguments)
    assert feed is not None
    try:
        for item in items:
            feed.emit(item)
            if attempt.reason is not None:
                raise asyncio.CancelledError(attempt.reason)
    finally:
        items.close()
    return None

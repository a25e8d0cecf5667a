"""A streaming batch: each step holds the next item of every job, or says that there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ropeway.runtime.batching.item import Item
from ropeway.runtime.batching.settings import DONE, NOTHING
from ropeway.runtime.coding import OutputInvalid

__all__ = ["Ended", "Steps", "check_count"]

Ended = tuple[Item, str | BaseException | None]
"""A job whose part is over: its output as JSON, None where that is what it emitted, or how it failed."""


class Steps:
    """The steps of one call, given out to its jobs. Where the call runs."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items

    @property
    def live(self) -> list[Item]:
        """Those that still get items."""
        return [item for item in self._items if not item.done]

    def give(self, step: Any) -> list[Ended]:
        """Emit what the step has for each; those that have ended by it. Raises OutputInvalid when it is no step."""
        check_count(step, len(self._items), "yielded")
        ended = []
        for item, value in zip(self._items, step, strict=True):
            if item.done or (value is NOTHING and item.reason is None):
                continue
            end = self._end_of(item, value)
            if end is not None:
                item.done = True
                ended.append(end)
        return ended

    def _end_of(self, item: Item, value: Any) -> Ended | None:
        """How this ends the job; None when it goes on."""
        if item.reason is not None:
            return item, asyncio.CancelledError(item.reason)
        if value is DONE:
            return item, None
        if isinstance(value, Exception):
            return item, value
        assert item.feed is not None
        try:
            item.feed.emit(value)
        except (OutputInvalid, asyncio.CancelledError) as error:
            return item, error
        return None


def check_count(values: Any, count: int, verb: str) -> None:
    """Nothing, when these are one for each job. Raises OutputInvalid."""
    if not isinstance(values, list | tuple):
        raise OutputInvalid(
            f"a batch task {verb} {type(values).__name__}, not a list with one entry for each of its {count} jobs"
        )
    if len(values) != count:
        raise OutputInvalid(f"a batch task {verb} {len(values)} entries for {count} jobs: one for each, in order")

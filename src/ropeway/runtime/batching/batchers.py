"""The batchers of one worker: one for each task whose jobs share calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ropeway.runtime.batching.batcher import Batcher
from ropeway.runtime.batching.tools import Tools
from ropeway.runtime.options import BatchSnapshot
from ropeway.runtime.run import Work
from ropeway.runtime.slots import Group
from ropeway.runtime.task import Task

__all__ = ["Batchers"]


class Batchers:
    """Made in the worker's loop, from all of its application's tasks."""

    def __init__(self, tasks: Iterable[Task[..., Any, Any]], tools: Tools) -> None:
        self.by_name: Mapping[str, Batcher] = {
            task.name: Batcher(Work(task, ()), task.batching, tools) for task in tasks if task.batching is not None
        }

    @property
    def works(self) -> Iterable[Work]:
        return [batcher.work for batcher in self.by_name.values()]

    @property
    def slots(self) -> int:
        """How many jobs can run at once, in full batches."""
        return sum(batcher.slots for batcher in self.by_name.values())

    def attach(self, groups: Sequence[Group]) -> None:
        """Have each hear from those that lease from its queue; from all, where its jobs can only come from others."""
        for batcher in self.by_name.values():
            queue = batcher.work.task.card.queue
            sources = [group for group in groups if queue in group.queues] or groups
            batcher.sources = sources
            for group in sources:
                group.looked = (*group.looked, batcher.looked)

    def drain(self) -> None:
        """Give back at once what waits for a call."""
        for batcher in self.by_name.values():
            batcher.drain()

    def snapshot(self) -> dict[str, BatchSnapshot]:
        """What became of the batches, by task. From any thread."""
        return {name: batcher.snapshot for name, batcher in self.by_name.items()}

"""What a worker has room for, and which queues it may therefore lease from.

The rule: **a job is leased only when it can start at once, whichever of its queue's tasks it turns out to be.** A lease
asks for a queue, not for a task; so what a queue may be asked for is the least room of all the tasks declared on it:
room on the event loop, room on the threads, idle children, room under a task's own `concurrency`. A queue of async
tasks alone never waits for threads. Where kinds are mixed, the fuller one holds the queue up: give blocking tasks, and
those with a `concurrency`, a queue of their own. A queue on which no task is declared could hold any of them.

The exception are batches: while all calls of a task run, one batch more is leased ahead (`runtime.batching`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from ropeway.engines.hints import Listener
from ropeway.runtime.inbox import Wake
from ropeway.runtime.task import Task

__all__ = ["Group", "Lane", "Room", "groups_of", "lanes_of"]


class Room(Protocol):
    """Something of which there is only so much."""

    @property
    def free(self) -> int: ...


class Lane:
    """Room that is counted here: jobs on the loop, or jobs of one task."""

    __slots__ = ("capacity", "used")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0

    @property
    def free(self) -> int:
        return self.capacity - self.used


class Group:
    """Queues that need the same room. `hungry`: they may hold work that has not been asked for.

    `idle` is raised when there is room and nothing to ask for; `hints` hears of work then. `unasked`: the next question
    is one that no hint asked for. `asking`: it is being asked for; those in `looked` are called after.
    """

    __slots__ = ("asking", "hints", "hungry", "idle", "looked", "queues", "rooms", "unasked")

    def __init__(self, queues: tuple[str, ...], rooms: tuple[Room, ...]) -> None:
        self.queues = queues
        self.rooms = rooms
        self.hungry = True
        self.unasked = False
        self.asking = False
        self.looked: tuple[Callable[[], None], ...] = ()
        self.idle = Wake()
        self.hints: Listener | None = None

    @property
    def free(self) -> int:
        return min(room.free for room in self.rooms)

    @property
    def waits(self) -> bool:
        """Whether it has room, and has asked for all that it knows of."""
        return not self.hungry and self.free > 0

    @property
    def coming(self) -> bool:
        """Whether work may come of which somebody has told already."""
        return self.asking or (self.hungry and self.free > 0)


def lanes_of(tasks: Iterable[Task[..., Any, Any]]) -> dict[str, Lane]:
    """The lanes of the tasks that cap their own concurrency, by name; batches and children are counted elsewhere."""
    capped = (task for task in tasks if task.batching is None and not task.in_process)
    return {task.name: Lane(task.concurrency) for task in capped if task.concurrency is not None}


def groups_of(
    queues: Sequence[str],
    tasks: Iterable[Task[..., Any, Any]],
    loop: Room,
    threads: Room,
    lanes: Mapping[str, Room],
) -> list[Group]:
    """The queues by what they need, in their own order. Queues before others are asked first, within a group."""
    tasks = tuple(tasks)
    grouped: dict[tuple[int, ...], tuple[list[str], tuple[Room, ...]]] = {}
    for queue in queues:
        declared = [task for task in tasks if task.card.queue == queue]
        rooms = _rooms(declared or tasks, loop, threads, lanes)
        grouped.setdefault(tuple(map(id, rooms)), ([], rooms))[0].append(queue)
    return [Group(tuple(names), rooms) for names, rooms in grouped.values()]


def _rooms(
    tasks: Sequence[Task[..., Any, Any]], loop: Room, threads: Room, lanes: Mapping[str, Room]
) -> tuple[Room, ...]:
    rooms: list[Room] = []
    alone = [task for task in tasks if task.batching is None and not task.in_process]
    if not tasks or any(task.on_loop for task in alone):
        rooms.append(loop)
    if any(not task.on_loop for task in alone):
        rooms.append(threads)
    return (*rooms, *(lanes[task.name] for task in tasks if task.name in lanes))

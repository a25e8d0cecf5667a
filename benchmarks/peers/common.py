"""What the drivers share: how a submit is timed, and how a round trip is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

from benchmarks.driver import Marks, Spec, Verb, finish, marks_for
from benchmarks.measure import Usage, usage

__all__ = ["Tasks", "arguments", "beside", "chunks", "pings", "pings_async", "submitted", "verbs"]

_PING_TIMEOUT_S = 30


def arguments(spec: Spec) -> list[tuple[Any, ...]]:
    """The arguments of each job to submit: its number first."""
    return [(n, *spec.get("args", ())) for n in range(spec["count"])]


def beside(url: str) -> str:
    """The server's next database, for results alone: how many there are is then one cheap question (DBSIZE)."""
    return url.removesuffix("/0") + "/1"


def chunks(every: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The items in order, `size` at a time."""
    for first in range(0, len(every), size):
        yield every[first : first + size]


def submitted(spec: Spec, begin: Usage) -> Mapping[str, Any]:
    """What a submit came to that ends now."""
    end = usage()
    return {"jobs": spec["count"], "wall_s": end.at_s - begin.at_s, "cpu_s": end.cpu_s - begin.cpu_s}


def pings(spec: Spec, ask: Callable[[int], int]) -> Mapping[str, Any]:
    """Have a job run, pause, again: ms until it started, and until its result was here.

    `ask` submits a job and waits for its result, which is the moment it started.
    """
    taken = []
    for n in range(spec["warm"] + spec["count"]):
        time.sleep(spec["pause_s"])
        begin = time.monotonic_ns()
        started = ask(n)
        taken.append((started - begin, time.monotonic_ns() - begin))
    return _pinged(spec, taken)


async def pings_async(spec: Spec, ask: Callable[[int], Awaitable[int]]) -> Mapping[str, Any]:
    """As `pings`."""
    taken = []
    for n in range(spec["warm"] + spec["count"]):
        await asyncio.sleep(spec["pause_s"])
        begin = time.monotonic_ns()
        started = await asyncio.wait_for(ask(n), _PING_TIMEOUT_S)
        taken.append((started - begin, time.monotonic_ns() - begin))
    return _pinged(spec, taken)


def verbs(*coroutines: Callable[[Spec], Coroutine[Any, Any, Mapping[str, Any]]]) -> dict[str, Verb]:
    """What a driver can be asked for, by name, each run on uvloop: every async library here can use it."""

    def verb(coroutine: Callable[[Spec], Coroutine[Any, Any, Mapping[str, Any]]]) -> Verb:
        async def whole(spec: Spec) -> NoReturn:
            finish(await coroutine(spec))  # not after the loop is closed, for which some worker's tasks are in no hurry

        def run(spec: Spec) -> Mapping[str, Any]:
            with asyncio.Runner(loop_factory=import_module("uvloop").new_event_loop) as runner:
                runner.run(whole(spec))

        return run

    return {coroutine.__name__: verb(coroutine) for coroutine in coroutines}


class Tasks:
    """The measured jobs of the libraries that call a function with a context and keywords or positions."""

    def __init__(self, spec: Spec | None = None) -> None:
        self.marks = Marks(0) if spec is None else marks_for(spec)

    async def noop(self, _context: object, n: int) -> int:
        self.marks.tick()
        return n

    def noop_sync(self, _context: object, n: int) -> int:
        self.marks.tick()
        return n

    async def sleep(self, _context: object, n: int, seconds: float) -> int:
        self.marks.enter()
        await asyncio.sleep(seconds)
        self.marks.leave()
        return n

    async def clock(self, _context: object, n: int) -> int:
        return time.monotonic_ns()


def _pinged(spec: Spec, taken: list[tuple[int, int]]) -> Mapping[str, Any]:
    counted = taken[spec["warm"] :]
    return {
        "start_ms": [start / 1e6 for start, _ in counted],
        "result_ms": [result / 1e6 for _, result in counted],
    }

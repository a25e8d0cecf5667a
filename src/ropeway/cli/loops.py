"""How this program runs its event loops."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["COLLECT_EVERY", "SWITCH_INTERVAL_S", "loop_factory", "run_loop", "tune_interpreter"]

T = TypeVar("T")

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter from another that waits for it. The engine's writer thread gives it up at
each statement: at the default of 5 ms a busy loop beside it makes each write wait so long (measured: 4.3k rows/s at
5 ms, 48k rows/s at 0.1 ms; 0.5 ms takes most of that and costs threads of user code less)."""


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on uvloop where there is one."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, or None for the standard loop (on Windows)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


COLLECT_EVERY = (10_000, 50, 100)
"""Allocations between two looks of the garbage collector at the youngest objects, and how many of those to one look at
the older, and at all. At Python's default (700, 10, 10) it looked at all of 30,000 running jobs again and again: 281 us
of CPU a job, 158 with these. Only cycles wait longer for their end; all else goes by reference count at once."""


def tune_interpreter() -> None:
    """For processes that serve, called when everything is imported: see SWITCH_INTERVAL_S and COLLECT_EVERY."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()  # what is imported stays: no need to look at it ever again
    gc.set_threshold(*COLLECT_EVERY)

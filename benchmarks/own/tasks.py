"""The measured jobs as Ropeway's tasks. Blocking ones have a queue of their own, as the guide to workers advises."""

from __future__ import annotations

import asyncio

from benchmarks import work
from ropeway import App, Limit

__all__ = ["app"]

app = App()


@app.task
async def nap(seconds: float) -> None:
    """Takes its time and nothing else."""
    await asyncio.sleep(seconds)


for _coroutine in (work.noop, work.sleep, work.request, work.clock, work.tokens):
    app.task(_coroutine)
for _function in (work.noop_sync, work.block):
    app.task(queue="blocking")(_function)
for _name, _limit in (
    ("noop_limited", Limit("all", max_running=100_000)),
    ("noop_rated", Limit("fast", per_s=1e9, burst=1e9)),
    ("noop_keyed", Limit("key:{input.n}", max_running=1)),
):
    app.task(name=_name, limits=[_limit])(work.noop)

"""The measured jobs as Ropeway's tasks. Blocking ones have a queue of their own, as the guide to workers advises."""

from __future__ import annotations

from benchmarks import work
from ropeway import App

__all__ = ["app"]

app = App()
for _coroutine in (work.noop, work.sleep, work.request, work.clock, work.tokens):
    app.task(_coroutine)
for _function in (work.noop_sync, work.block):
    app.task(queue="blocking")(_function)

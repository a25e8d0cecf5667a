"""Our gateway for the HTTP server under measurement; what it is to do comes by the environment.

BENCH_URL: the engine. BENCH_WORKER: not empty for a worker in the same process.
"""

from __future__ import annotations

import os

from benchmarks.own.tasks import app as tasks
from ropeway import WorkerOptions, asgi
from ropeway.cli.loops import tune_interpreter
from ropeway.serving import GatewayOptions

__all__ = ["app"]

_SLOTS = 2_000  # more than the streams at once

tune_interpreter()  # as `ropeway api` and `ropeway up` do
app = asgi(
    tasks,
    os.environ["BENCH_URL"],
    worker=WorkerOptions(concurrency=_SLOTS) if os.environ.get("BENCH_WORKER") else False,
    options=GatewayOptions(),
)

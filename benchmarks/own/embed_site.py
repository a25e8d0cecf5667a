"""Our gateway for embeddings; BENCH_URL: the engine. BENCH_WORKER: not empty for a worker in the same process."""

from __future__ import annotations

import os

from benchmarks.own.embed import app as tasks
from ropeway import WorkerOptions, asgi
from ropeway.cli.loops import tune_interpreter
from ropeway.serving import GatewayOptions

__all__ = ["app"]

tune_interpreter()  # as `ropeway api` and `ropeway up` do
app = asgi(
    tasks,
    os.environ["BENCH_URL"],
    worker=WorkerOptions(queues=("batched",)) if os.environ.get("BENCH_WORKER") else False,
    options=GatewayOptions(),
)

"""`ropeway bench`: what an engine does on this machine, in half a minute, with everything switched on."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.options import JsonLines
from ropeway.cli.output import err, lines_wanted, out, write_line
from ropeway.cli.teaching import help_text
from ropeway.client import Client, call
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.queue import QueueChange
from ropeway.engines.base import Engine
from ropeway.engines.connect import connect
from ropeway.runtime import App, Worker, WorkerOptions

__all__ = ["BENCH_HELP", "Figure", "bench"]

BENCH_HELP = help_text(
    "Measure an engine here: submits alone and in bulk, a worker that drains them, the time from submit to result.",
    "The jobs do nothing, so the figures are Ropeway's own. Results are stored and events written; nothing is skipped.",
    examples=(
        "ropeway bench",
        "ropeway bench --dir /var/lib       # the disk that the engine will live on",
        "ropeway bench --engine memory --jobs 100000",
        "ropeway bench --engine redis://valkey:6379",
    ),
)

QUEUE = "bench"
LONE_SHARE = 20  # one job in so many is submitted alone, and run alone for the latencies


class Figure(msgspec.Struct, frozen=True):
    """One measurement. `cpu_us_per_job` counts all of this process: client, engine and worker; no server's."""

    name: str
    jobs: int
    seconds: float
    jobs_per_s: float
    cpu_us_per_job: float
    p50_ms: float | None = None
    p99_ms: float | None = None


app = App()


@app.task(queue=QUEUE)
async def nothing(n: int) -> int:
    """Give back what came."""
    return n


def bench(
    engine: Annotated[
        str,
        typer.Option(
            "--engine", "-e", help="`sqlite` (a new file), `memory`, or the URL of a Redis or Valkey (keys of its own)."
        ),
    ] = "sqlite",
    folder: Annotated[Path, typer.Option("--dir", help="Where the file is made, and deleted after.")] = Path(),
    jobs: Annotated[int, typer.Option(min=100, max=1_000_000, help="Jobs to submit and run.")] = 20_000,
    json: JsonLines = None,
) -> None:
    tune_interpreter()
    with _store(engine, folder) as url:
        name, figures = run_loop(_measure(url, jobs))
    if lines_wanted(json):
        for figure in figures:
            write_line(figure)
    else:
        out().print(_table(figures, name))


@contextmanager
def _store(engine: str, folder: Path) -> Iterator[str]:
    """The URL of a new store; a file is gone after. Raises InvalidRequest."""
    kind = engine.removesuffix(":")
    if kind == "memory":
        yield "memory:"
    elif kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="ropeway-bench-", dir=folder) as made:
            yield f"sqlite:{Path(made).resolve() / 'bench.db'}"
    elif kind.startswith("sqlite:"):
        raise InvalidRequest("bench makes a file of its own: `--engine sqlite`, and `--dir` says where")
    else:
        from ropeway.engines.redis.scratch import scratch_url  # an engine is loaded when it is asked for

        yield scratch_url(engine, "bench")


async def _measure(url: str, jobs: int) -> tuple[str, list[Figure]]:
    engine = connect(url)
    await engine.open()
    try:
        info = engine.info
        name = f"{info.version}, {info.durability} class" if info.kind == "redis" else info.kind
        return name, await _figures(engine, jobs)
    finally:
        await _forget(engine)
        await engine.shut()


async def _forget(engine: Engine) -> None:
    """Leave nothing on a server. Raises EngineUnavailable."""
    if engine.info.kind == "redis":
        from ropeway.engines.redis import RedisEngine
        from ropeway.engines.redis.scratch import wipe

        if isinstance(engine, RedisEngine):
            for partition in engine.partitions:
                await wipe(partition)


async def _figures(engine: Engine, jobs: int) -> list[Figure]:
    async with Client(engine) as client:
        _say("submitting")
        await engine.set_queue([QueueChange(QUEUE, paused=True, max_depth=2 * jobs)])
        alone = await _submit_alone(client, jobs // LONE_SHARE)
        together = await _submit_many(client, jobs)
        _say("draining")
        waiting = alone.jobs + together.jobs
        async with _worker(engine) as worker:
            drained = await _drain(engine, worker, waiting)
            _say("one by one")
            latencies = await _round_trips(client, jobs // LONE_SHARE)
    return [alone, together, drained, latencies]


class _Stopwatch:
    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def figure(self, name: str, jobs: int) -> Figure:
        wall_s, cpu_s = time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s
        return Figure(name, jobs, wall_s, jobs / wall_s, cpu_s / jobs * 1e6)


async def _submit_alone(client: Client, jobs: int) -> Figure:
    watch = _Stopwatch()
    for n in range(jobs):
        await client.submit(nothing, n)
    return watch.figure("submit, one by one", jobs)


async def _submit_many(client: Client, jobs: int) -> Figure:
    watch = _Stopwatch()
    async for _ in client.submit_many(call(nothing, n) for n in range(jobs)):
        pass
    return watch.figure("submit, in bulk", jobs)


async def _drain(engine: Engine, worker: Worker, jobs: int) -> Figure:
    watch = _Stopwatch()
    with engine.listen("lifecycle") as hints:
        await engine.set_queue([QueueChange(QUEUE, paused=False)])
        while worker.snapshot().outcomes.get("succeeded", 0) < jobs:
            await hints.wait(0.1)
    return watch.figure("run, one worker", jobs)


async def _round_trips(client: Client, jobs: int) -> Figure:
    watch = _Stopwatch()
    times_ms = []
    for n in range(jobs):
        start = time.perf_counter()
        await (await client.submit(nothing, n)).result()
        times_ms.append((time.perf_counter() - start) * 1000)
    cuts = statistics.quantiles(times_ms, n=100)
    figure = watch.figure("submit -> result", jobs)
    return msgspec.structs.replace(figure, p50_ms=cuts[49], p99_ms=cuts[98])


@asynccontextmanager
async def _worker(engine: Engine) -> AsyncIterator[Worker]:
    worker = Worker(app, engine, WorkerOptions(name="bench", concurrency=1000, threads=4))
    running = asyncio.create_task(worker.run())
    await worker.started()
    try:
        yield worker
    finally:
        await worker.stop()
        await running


def _say(step: str) -> None:
    console = err()
    if console.is_terminal:
        console.print(f"{step} …", style="dim")


def _table(figures: list[Figure], name: str) -> Table:
    table = Table("", box=None, title=f"{name}, client and worker in one process", title_justify="left")
    for column in ("jobs", "jobs/s", "CPU us/job", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for figure in figures:
        percentiles = ["" if ms is None else f"{ms:.2f}" for ms in (figure.p50_ms, figure.p99_ms)]
        rate, cpu = f"{figure.jobs_per_s:,.0f}", f"{figure.cpu_us_per_job:.0f}"
        table.add_row(figure.name, f"{figure.jobs:,}", rate, cpu, *percentiles)
    return table

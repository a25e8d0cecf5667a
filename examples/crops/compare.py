"""Throughput with dynamic batching against without, on the real networks: `python -m examples.crops.compare`.

The same images, stored beforehand, through one worker in this process on a SQLite engine: calls of one image each, and
of up to eight, by turns. And the network alone, by how many tiles it is given at once.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from examples.crops.classifier import TILE, Classifier
from examples.crops.samples import SAMPLES, sample_bytes
from examples.crops.settings import QUEUE, TASK, CropsSettings
from examples.crops.tasks import build
from ropeway import Client, Worker, WorkerOptions, connect

__all__ = ["main"]

TILES = 64


def main(
    images: Annotated[int, typer.Option(min=1, help="Images in each run.")] = 24,
    mb: Annotated[float, typer.Option(min=0.1, help="Size of each, at least.")] = 6.0,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each kind, by turns; the best one counts.")] = 2,
) -> None:
    """Print both tables."""
    contents = [sample_bytes(next(iter(SAMPLES)), round(mb * 1e6), n) for n in range(images)]
    sizes = (1, 2, 4, 8)
    runs = [(size, asyncio.run(_run(contents, size))) for _ in range(rounds) for size in sizes]
    title = f"{images} images of {mb:g} MB, one worker"
    table = Table("images in a call, at most", "calls", "images/s", "CPU s an image", title=title)
    for size in sizes:
        mine = [run for at, run in runs if at == size]
        fastest, least_cpu_s = min(mine), min(run.cpu_s for run in mine)
        table.add_row(str(size), str(fastest.calls), f"{images / fastest.seconds:.2f}", f"{least_cpu_s / images:.2f}")
    console = Console()
    console.print(table)
    console.print(_alone())


class _Took(NamedTuple):
    """From when the line opens to the last result."""

    seconds: float
    calls: int
    cpu_s: float


async def _run(contents: list[bytes], size: int) -> _Took:
    with tempfile.TemporaryDirectory(prefix="crops-") as folder:
        own = CropsSettings(results=f"sqlite:///{folder}/results.db", cpu_batch=size)
        engine = connect(f"sqlite:///{folder}/crops.db")
        await engine.open()
        worker = Worker(build(own), engine, WorkerOptions(name="compared", queues=(QUEUE,)))
        async with Client(engine) as client:
            await client.pause(QUEUE)
            working = asyncio.create_task(worker.run())
            await worker.started()
            jobs = []
            for n, content in enumerate(contents):
                image = await client.upload(content, filename=f"{n}.tif")
                jobs.append(await client.submit(TASK, image=image, crop_id=f"crop-{n}"))
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            await client.resume(QUEUE)
            for job in jobs:
                await job.result()
            taken_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
            calls = worker.snapshot().batches[TASK].batches
            await worker.stop()
            await working
        await engine.shut()
    return _Took(taken_s, calls, cpu_s)


def _alone() -> Table:
    """The network by itself, on tiles of 128 x 128 pixels."""
    classifier = Classifier()
    table = Table(
        "tiles in a call", "tiles/s", title=f"{classifier.networks[0].card.version} alone, {classifier.device}"
    )
    network = classifier.networks[0]
    side = TILE + 2 * network.card.reach
    tiles = np.random.default_rng(1).random((TILES, len(network.card.bands), side, side), np.float32)
    network.run(tiles[:1])
    for size in (1, 4, 16, 64):
        began_s = time.perf_counter()
        for start in range(0, TILES, size):
            network.run(tiles[start : start + size])
        table.add_row(str(size), f"{TILES / (time.perf_counter() - began_s):.0f}")
    return table


if __name__ == "__main__":
    typer.run(main)

"""What batches and devices are worth, on the real networks: `python -m examples.crops.compare`, `--device gpu`.

The same images, stored beforehand, through one worker in this process on a SQLite engine: calls of one image each, and
of more, by turns. Then the network alone, by how many tiles it is given at once, and what the steps of an image cost.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from examples.crops.classifier import TILE, Classifier
from examples.crops.indices import indices, summary
from examples.crops.maps import class_map, index_map, picture
from examples.crops.samples import SAMPLES, sample_bytes
from examples.crops.scene import Floats, read_scene
from examples.crops.settings import GPU_QUEUE, GPU_TASK, QUEUE, TASK, CropsSettings
from examples.crops.tasks import build
from examples.crops.verdict import verdict
from ropeway import Client, Worker, WorkerOptions, connect

__all__ = ["main"]

TILES = 64
GROUND_M = (4.0, 10.0, 20.0)  # of a pixel, in the images whose steps are told; the network's own is 20 m
STEPS = ("read", "indices", "prepare tiles", "network", "verdict and maps", "summaries")

Device = Literal["auto", "cpu", "gpu"]


def main(
    images: Annotated[int, typer.Option(min=1, help="Images in each run.")] = 24,
    mb: Annotated[float, typer.Option(min=0.1, help="Size of each, at least.")] = 6.0,
    pixel_m: Annotated[float, typer.Option(min=0, help="Metres of a pixel, as if; 0: as it is, about 4.")] = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each kind, by turns; the best one counts.")] = 2,
    sizes: Annotated[str, typer.Option(help="Images in a call, at most.")] = "1,2,4,8",
    device: Annotated[Device, typer.Option(help="What the networks run on.")] = "auto",
) -> None:
    """Print three tables; on a GPU, also by how much it differs from a processor."""
    contents = [sample_bytes(next(iter(SAMPLES)), round(mb * 1e6), n, pixel_m or None) for n in range(images)]
    calls = [int(size) for size in sizes.split(",")]
    classifier = Classifier(device=device)
    on: Device = "gpu" if classifier.device == "gpu" else "cpu"
    runs = [(size, asyncio.run(_run(contents, size, on))) for _ in range(rounds) for size in calls]
    table = Table(
        *("images in a call, at most", "calls", "images/s", "CPU s an image"),
        title=f"{images} images of {mb:g} MB, one worker, {classifier.device}",
    )
    for size in calls:
        mine = [run for at, run in runs if at == size]
        fastest, least_cpu_s = min(mine), min(run.cpu_s for run in mine)
        table.add_row(str(size), str(fastest.calls), f"{images / fastest.seconds:.2f}", f"{least_cpu_s / images:.2f}")
    console = Console()
    console.print(table)
    console.print(_alone(classifier))
    console.print(_steps(classifier, round(mb * 1e6), rounds))
    if classifier.device == "gpu":
        console.print(f"its shares differ from a processor's by {_difference(classifier, contents[0]):.1e} at most")


class _Took(NamedTuple):
    """From when the line opens to the last result."""

    seconds: float
    calls: int
    cpu_s: float


async def _run(contents: list[bytes], size: int, device: Device) -> _Took:
    task, queue = (GPU_TASK, GPU_QUEUE) if device == "gpu" else (TASK, QUEUE)
    devices = ("0",) if device == "gpu" else ()
    with tempfile.TemporaryDirectory(prefix="crops-") as folder:
        own = CropsSettings(results=f"sqlite:///{folder}/results.db", batch=size, cpu_batch=size, device=device)
        engine = connect(f"sqlite:///{folder}/crops.db")
        await engine.open()
        worker = Worker(build(own), engine, WorkerOptions(name="compared", queues=(queue,), devices=devices))
        async with Client(engine) as client:
            await client.pause(queue)
            working = asyncio.create_task(worker.run())
            await worker.started()
            jobs = []
            for n, content in enumerate(contents):
                image = await client.upload(content, filename=f"{n}.tif")
                jobs.append(await client.submit(task, image=image, crop_id=f"crop-{n}"))
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            await client.resume(queue)
            for job in jobs:
                await job.result()
            taken_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
            calls = worker.snapshot().batches[task].batches
            await worker.stop()
            await working
        await engine.shut()
    return _Took(taken_s, calls, cpu_s)


def _alone(classifier: Classifier) -> Table:
    """The network by itself, on tiles of 128 x 128 pixels."""
    table = Table(
        "tiles in a call", "tiles/s", title=f"{classifier.networks[0].card.version} alone, {classifier.device}"
    )
    network = classifier.networks[0]
    side = TILE + 2 * network.card.reach
    tiles = np.random.default_rng(1).random((TILES, len(network.card.bands), side, side), np.float32)
    network.run(tiles[:1])
    for size in (1, 2, 4, 8, 16, 32, 64):
        began_s = time.perf_counter()
        for start in range(0, TILES, size):
            network.run(tiles[start : start + size])
        table.add_row(str(size), f"{TILES / (time.perf_counter() - began_s):.0f}")
    return table


def _steps(classifier: Classifier, size: int, rounds: int) -> Table:
    """Milliseconds that the steps of one image take, by itself, and what would be left of them without the network."""
    table = Table("a pixel is", *(f"{pixel_m:g} m" for pixel_m in GROUND_M), title="ms of one image, by its steps")
    columns: list[list[float]] = []
    for pixel_m in GROUND_M:
        runs = [_stepped(classifier, sample_bytes(next(iter(SAMPLES)), size, n, pixel_m)) for n in range(rounds)]
        best_s = {step: min(took[step] for took, _ in runs) for step in STEPS}
        whole_s = sum(best_s.values())
        told_s = (*best_s.values(), whole_s, whole_s - best_s["network"])
        columns.append([runs[0][1], *(1000 * seconds for seconds in told_s)])
    names = ("tiles", *STEPS, "all", "all without the network")
    for name, values in zip(names, zip(*columns, strict=True), strict=True):
        table.add_row(name, *(f"{value:.0f}" for value in values))
    return table


def _stepped(classifier: Classifier, content: bytes) -> tuple[dict[str, float], int]:
    """Seconds by step, and how many tiles the network was given."""
    took: dict[str, float] = {}

    def timed(step: str, act: Callable[[], Any]) -> Any:
        began_s = time.perf_counter()
        done = act()
        took[step] = took.get(step, 0.0) + time.perf_counter() - began_s
        return done

    with tempfile.NamedTemporaryFile(suffix=".tif") as file:
        Path(file.name).write_bytes(content)
        scene = timed("read", lambda: read_scene(Path(file.name), "GTiff"))
    found = timed("indices", lambda: indices(scene))
    network = classifier.network_for(scene)
    assert network is not None
    run, tiles = network.run, 0

    def counted(given: Floats) -> Floats:
        nonlocal tiles
        tiles += len(given)
        answer: Floats = timed("network", lambda: run(given))
        return answer

    vars(network)["run"] = counted  # in front of the method, for this one call
    try:
        (classes,) = timed("prepare tiles", lambda: classifier.classify([scene]))
    finally:
        del vars(network)["run"]
    took["prepare tiles"] -= took["network"]
    timed("verdict and maps", lambda: verdict(scene, found, classes))
    timed("verdict and maps", lambda: (picture(scene), index_map(found["ndvi"]), class_map(classes)))
    timed("summaries", lambda: [summary(index) for index in found.values()])
    return took, tiles


def _difference(classifier: Classifier, content: bytes) -> float:
    with tempfile.NamedTemporaryFile(suffix=".tif") as file:
        Path(file.name).write_bytes(content)
        scene = read_scene(Path(file.name), "GTiff")
    (one,), (other,) = classifier.classify([scene]), Classifier(device="cpu").classify([scene])
    assert one is not None and other is not None
    return float(np.abs(one.shares - other.shares).max())


if __name__ == "__main__":
    typer.run(main)

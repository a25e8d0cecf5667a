"""`python -m examples.crops`: the page, a gateway and workers, in one command."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

import typer

from examples.crops.gateway import serve
from examples.crops.settings import GPU_QUEUE, QUEUE, CropsSettings
from examples.hosting import renewer_of, told_in_a_line
from ropeway import WorkerOptions
from ropeway.cli.logs import start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.runtime.child import ChildSpec
from ropeway.runtime.process.devices import pinned
from ropeway.runtime.supervisor import Supervisor

__all__ = ["main"]

GRACE_S = 60.0  # for images in hand at a stop; the rest is given back and goes on at the next start
GRACE_MARGIN_S = 10.0
DEFAULT_BLOBS = "file:crops-files"  # for engines that have no place of their own for files


def main(
    engine: Annotated[
        str, typer.Option(help="sqlite:PATH, redis://HOST, or memory:, one process.")
    ] = "sqlite:crops.db",
    blobs: Annotated[str, typer.Option(help="Where images are: file:PATH, s3://BUCKET. Beside a SQLite file.")] = "",
    results: Annotated[str, typer.Option(help="SQL for results: sqlite:///PATH, postgresql+psycopg://…")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8006,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow an address that others can reach.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    gpus: Annotated[str, typer.Option(help="Devices of the GPU workers, one each: 0,1. None without.")] = "",
    batch: Annotated[int, typer.Option(min=1, help="Images in a call of the model on a GPU, at most.")] = 8,
    cpu_batch: Annotated[int, typer.Option(min=1, help="And without one.")] = 2,
    min_mb: Annotated[float, typer.Option(min=0, help="Smallest image, in MB.")] = 5.0,
    max_mb: Annotated[float, typer.Option(min=0, help="Largest.")] = 50.0,
    max_queued: Annotated[int, typer.Option(min=1, help="Images that may wait.")] = 1_000,
    allow_webhooks: Annotated[str, typer.Option(help="Webhooks beside the public net: HOST:PORT,…")] = "",
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What to log.")] = "warning",
) -> None:
    """Serve a page to which satellite images are uploaded, and analyse them on workers with and without a GPU."""
    own = CropsSettings(
        min_bytes=round(min_mb * 1e6),
        max_bytes=round(max_mb * 1e6),
        results=results or CropsSettings().results,
        batch=batch,
        cpu_batch=cpu_batch,
        max_queued=max_queued,
    )
    start_logging(log_level, "crops")
    with told_in_a_line("crops"):
        check_bind(host, insecure)
        port = probe_port(host, port)
        os.environ.update(own.environment())
        if allow_webhooks:
            os.environ["ROPEWAY_WEBHOOKS_ALLOW"] = allow_webhooks
        if not blobs and not engine.startswith("sqlite:"):
            blobs = DEFAULT_BLOBS
        if engine.startswith("memory:"):
            tune_interpreter()
            run_loop(serve(engine, host, port, own, blobs=blobs, worker=WorkerOptions(name="worker-1")))
        else:
            devices = [device.strip() for device in gpus.split(",") if device.strip()]
            raise typer.Exit(_supervise(engine, blobs, host, port, workers, devices, log_level))


def _supervise(engine: str, blobs: str, host: str, port: int, workers: int, devices: list[str], log_level: str) -> int:
    """Keep the processes running until told to stop. This one runs no code of the application."""
    common = ("--engine", engine, "--log-level", log_level, *(("--blobs", blobs) if blobs else ()))
    where = ("--host", host, "--port", str(port), "--insecure")  # checked here already
    children = [ChildSpec("gateway", (sys.executable, "-m", "examples.crops.gateway", *where, *common))]
    worker = (sys.executable, "-m", "ropeway", "worker", "examples.crops.tasks:app", "--grace", str(GRACE_S), *common)
    for number in range(1, workers + 1):
        name = f"cpu-{number}" if devices else f"worker-{number}"
        children.append(
            ChildSpec(name, (*worker, "--name", name, "--devices", "none", "--queues", QUEUE), {"CROPS_DEVICE": "cpu"})
        )
    for device in devices:  # each sees its own device and no other
        alone = {"CROPS_DEVICE": "gpu", **pinned(device)}
        runs = ("--name", f"gpu-{device}", "--devices", device, "--queues", f"{GPU_QUEUE},{QUEUE}")
        children.append(ChildSpec(f"gpu-{device}", (*worker, *runs), alone))
    return Supervisor(children, renewer_of(engine), grace_s=GRACE_S + GRACE_MARGIN_S).run()


if __name__ == "__main__":
    typer.run(main)

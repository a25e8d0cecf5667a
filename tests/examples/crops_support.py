"""What the crops' tests share: images made here, the application in this process, and processes to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from examples.crops.results import results
from examples.crops.samples import sample_bytes
from examples.crops.scene import Floats, Scene
from examples.crops.settings import CropsSettings
from examples.crops.web import CropsWeb

from ropeway import GatewayOptions, WorkerOptions, connect
from ropeway.engines.base import Engine
from ropeway.serving import Gateway
from ropeway.serving.server import Server
from servers import free_port

__all__ = [
    "LARGE",
    "PATIENCE_S",
    "PINES",
    "ROOT",
    "Crops",
    "Processes",
    "crops",
    "crops_of",
    "encoded",
    "eventually",
    "geotiff",
    "killed_at",
    "pines",
    "scene",
]

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 60.0
PINES = "indian-pines.tif"

LARGE = 24_000_000
"""Of an image on which a worker is busy for long enough to be killed at it."""


def pines(turn: int = 0, least_bytes: int = 100_000) -> bytes:
    """The sample; each `turn` is another image."""
    return sample_bytes(PINES, least_bytes, turn)


def geotiff(bands: npt.NDArray[Any], names: Sequence[str | None] = (), **about: Any) -> bytes:
    """Bands by row and column as a TIFF."""
    rasterio: Any = import_module("rasterio")
    size = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with rasterio.io.MemoryFile() as memory:
        with memory.open(driver="GTiff", **{**size, **about}) as image:
            image.write(bands)
            if names:
                image.descriptions = names
        written: bytes = memory.read()
    return written


def encoded(bands: npt.NDArray[np.uint8], driver: str) -> bytes:
    """The same as a PNG or a JPEG."""
    return geotiff(bands, driver=driver) if driver == "GTiff" else _copied(bands, driver)


def _copied(bands: npt.NDArray[np.uint8], driver: str) -> bytes:
    rasterio: Any = import_module("rasterio")
    with rasterio.io.MemoryFile() as memory:
        size = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": "uint8"}
        with memory.open(driver=driver, **size) as image:
            image.write(bands)
        written: bytes = memory.read()
    return written


def scene(**bands: float | list[list[float]]) -> Scene:
    """A scene of a few pixels; a number stands for all of them."""
    arrays = {name: np.atleast_2d(np.asarray(value, np.float32)) for name, value in bands.items()}
    shape = max((array.shape for array in arrays.values()), key=np.prod)
    whole: Floats = np.stack([np.broadcast_to(array, shape) for array in arrays.values()])
    return Scene(tuple(arrays), whole, np.ones(shape, bool), True, 20.0, None, ())


class Crops:
    """The application, asked over a real socket."""

    def __init__(self, http: httpx.AsyncClient, engine: Engine, own: CropsSettings) -> None:
        self.http = http
        self.engine = engine
        self.own = own

    @property
    def url(self) -> str:
        return str(self.http.base_url)

    async def upload(self, content: bytes, name: str = "a.tif", crop: str = "f1", **more: Any) -> httpx.Response:
        """As a form."""
        return await self.http.post(f"/api/crops/{crop}/analyze", files={"file": (name, content)}, **more)

    async def accepted(self, content: bytes, name: str = "a.tif", crop: str = "f1", **more: Any) -> dict[str, Any]:
        answer = await self.upload(content, name, crop, **more)
        assert answer.status_code in (200, 202), answer.text
        return cast(dict[str, Any], answer.json())

    async def refused(self, content: bytes, name: str) -> str:
        """Why it was not taken: always with a 400."""
        answer = await self.upload(content, name)
        assert answer.status_code == 400, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        return str(answer.json()["detail"])

    async def result(self, job_id: str) -> dict[str, Any]:
        """What came of it, as soon as that is known."""
        await eventually(lambda: self._has_ended(job_id), f"{job_id} ended")
        return cast(dict[str, Any], (await self.http.get(f"/api/results/{job_id}")).json())

    async def _has_ended(self, job_id: str) -> bool:
        answer = await self.http.get(f"/api/results/{job_id}")
        assert answer.status_code in (200, 202), answer.text
        return answer.status_code == 200


@asynccontextmanager
async def crops(home: Path, *, worker: bool = True, **changes: Any) -> AsyncIterator[Crops]:
    """The example on a SQLite engine, served in this process, with or without anybody who works."""
    own = CropsSettings(**{"min_bytes": 20_000, "results": f"sqlite:///{home}/results.db", **changes})
    engine = connect(f"sqlite:///{home}/crops.db")
    await engine.open()
    try:
        options = GatewayOptions(webhook_allow=("127.0.0.1",))
        web = CropsWeb(engine, own, options, worker=WorkerOptions(name="worker-1") if worker else None)
        async with Server(cast(Gateway, web), port=0) as server, httpx.AsyncClient(base_url=server.url) as http:
            yield Crops(http, engine, own)
    finally:
        await engine.shut()


async def killed_at(served: Crops, job_id: str) -> None:
    """`kill -9` of the worker that has begun with a job, in the middle of it: it is stopped before it could end."""

    async def runs() -> bool:
        return bool((await served.http.get(f"/api/results/{job_id}")).json().get("worker"))

    await eventually(runs, "the job was begun")
    named = (await served.http.get(f"/api/results/{job_id}")).json()["worker"]
    (pid,) = [card.pid for card in await served.engine.workers() if card.name == named]
    os.kill(pid, signal.SIGSTOP)
    answer = await served.http.get(f"/api/results/{job_id}")
    os.kill(pid, signal.SIGKILL)
    assert answer.status_code == 202, "it was done before its worker could be killed"
    assert answer.json()["attempt"] == 1


def crops_of(served: Crops) -> list[Any]:
    """Those that have a row in the SQL database, each as often as it has one."""
    engine = sa.create_engine(served.own.results)
    with engine.connect() as connection:
        found = sorted(connection.execute(sa.select(results.c.crop_id)).scalars())
    engine.dispose()
    return found


class Processes:
    """A gateway and workers in processes of their own, on any engine; each may be killed."""

    def __init__(self, engine_url: str, home: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = home
        self._common = ("--engine", engine_url, "--blobs", f"file://{home}/blobs")
        self._own = CropsSettings(min_bytes=20_000, results=f"sqlite:///{home}/results.db")
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def gateway(self) -> None:
        """Start it, and wait until it says that it serves."""
        process = await self._start("gateway", "-m", "examples.crops.gateway", "--port", str(self.port))
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await process.stdout.readline()
        assert line, (self._home / "gateway.log").read_text()[-4000:]
        assert json.loads(line)["url"] == self.url

    async def worker(self, name: str) -> None:
        await self._start(name, "-m", "ropeway", "worker", "examples.crops.tasks:app", "--name", name)

    async def end(self) -> None:
        for process in self._running.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)  # whoever supervises takes its workers along
                await process.wait()

    async def _start(self, name: str, *command: str) -> asyncio.subprocess.Process:
        with (self._home / f"{name}.log").open("ab") as said:
            self._running[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                *self._common,
                cwd=ROOT,
                env=os.environ | self._own.environment(),
                stdout=asyncio.subprocess.PIPE if name == "gateway" else said,
                stderr=said,
            )
        return self._running[name]


async def eventually(holds: Callable[[], Awaitable[bool]], name: str) -> None:
    """Wait until the condition holds, for what no event tells."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not await holds():
        assert time.monotonic() < deadline_s, f"waited in vain until {name}"
        await asyncio.sleep(0.02)

"""The GPU's path of the crops example: its queue, its worker, its calls of the network, and a GPU that fails.

Where there is none, ONNX Runtime only says that it has one, and processors do the work: all but CUDA itself is real.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from crops_support import LARGE, PATIENCE_S, ROOT, Crops, crops, crops_of, eventually, killed_at, pines
from examples.crops.classifier import TILES_AT_ONCE, Classifier
from examples.crops.scene import Scene, read_scene
from examples.crops.settings import GPU_QUEUE, CropsSettings
from gpu_support import CPU, CUDA, NO_GPU, Calls, pretend, runtime_with_gpu

from ropeway import Client, connect


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """An ONNX Runtime that says it has a GPU, in this process."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    return pretend(import_module("onnxruntime"), set_=monkeypatch.setattr)


def read(folder: Path, *turns: int) -> list[Scene]:
    """Images of four tiles each."""
    scenes = []
    for turn in turns:
        path = folder / f"{turn}.tif"
        path.write_bytes(pines(turn))
        scenes.append(read_scene(path, "GTiff"))
    return scenes


def test_cuda_is_asked_for_with_its_libraries_and_without_a_fallback(on_gpu: Calls) -> None:
    """Libraries that pip brought are loaded first; numbers are not rounded; a GPU that fails is not done without."""
    classifier = Classifier(device="gpu", threads=1)
    assert classifier.device == "gpu"
    for session in on_gpu.sessions:
        (cuda, options), cpu = session["providers"]
        assert (cuda, cpu) == (CUDA, CPU)
        assert options == {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
        assert session["enable_fallback"] == 0
        assert session["preloaded"] == 1


def test_a_gpu_is_prepared_for_every_call_that_comes(on_gpu: Calls, tmp_path: Path) -> None:
    """Calls have few numbers of tiles, each tried at the start; what fills them up comes into no image."""
    scenes = read(tmp_path, 0, 40, 80)
    wanted = Classifier(device="cpu", threads=1).classify(scenes)
    assert on_gpu.tiles == []
    classifier = Classifier(device="gpu", threads=1)
    prepared = set(on_gpu.tiles)
    assert max(prepared) == TILES_AT_ONCE["gpu"]
    on_gpu.tiles.clear()
    found = classifier.classify(scenes)
    assert on_gpu.tiles == [16], "the twelve tiles of three images share a call"
    assert set(on_gpu.tiles) <= prepared
    for one, other in zip(found, wanted, strict=True):
        assert one is not None and other is not None
        assert np.allclose(one.shares, other.shares, atol=1e-5)


def test_a_gpu_that_cannot_be_used_is_told_of_at_the_start(
    on_gpu: Calls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With CUDA's own word; who left the choice to us has a processor, and a line in the log."""
    caplog.set_level(logging.WARNING)

    def fails(tiles: int) -> None:
        raise RuntimeError("CUDA failure 222: the provided PTX was compiled with an unsupported toolchain ; GPU=0")

    on_gpu.before = fails
    told = "could not use the GPU: CUDA failure 222: the provided PTX was compiled with an unsupported toolchain$"
    with pytest.raises(ValueError, match=told):
        Classifier(device="gpu", threads=1)
    assert Classifier(device="auto", threads=1).device == "cpu"
    assert "unsupported toolchain; the networks run on a processor" in caplog.text

    runtime = import_module("onnxruntime")
    monkeypatch.setattr(runtime.InferenceSession, "get_providers", lambda self: [CPU])  # as without CUDA's libraries
    with pytest.raises(ValueError, match="CUDA's libraries or NVIDIA's driver are missing"):
        Classifier(device="gpu", threads=1)
    monkeypatch.setattr(runtime, "get_available_providers", lambda: [CPU])
    with pytest.raises(ValueError, match="install onnxruntime-gpu in its place"):
        Classifier(device="gpu", threads=1)


def test_nobody_looks_for_a_gpu_where_none_is_seen(on_gpu: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker from which the devices are hidden does not load CUDA's libraries to find that out."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Classifier(device="auto", threads=1).device == "cpu"
    assert on_gpu.preloaded == 0
    assert [session["providers"] for session in on_gpu.sessions] == [[CPU]] * 2


@pytest.mark.slow
async def test_a_call_for_which_a_gpu_has_no_memory_is_made_in_parts(on_gpu: Calls, home: Path) -> None:
    """It is no crash: the images of the call go again by halves, in the same attempt; none fits, and the job fails."""

    def full(tiles: int) -> None:
        if tiles > most:
            raise RuntimeError(f"Failed to allocate memory for requested buffer of size {tiles}")

    most = TILES_AT_ONCE["gpu"]
    on_gpu.before = full
    async with crops(home) as served, Client(served.engine) as client:
        await eventually(lambda: _gpu_workers(served, 1), "the worker is here")
        await client.pause(GPU_QUEUE)
        jobs = [await served.accepted(pines(turn), crop=f"turn-{turn}") for turn in range(4)]
        most = 8
        await client.resume(GPU_QUEUE)
        ended = [await served.result(job["job_id"]) for job in jobs]
        assert [(one["status"], one["attempt"], one["result"]["device"]) for one in ended] == [
            ("succeeded", 1, "gpu")
        ] * 4
        most = 2
        lost = await served.result((await served.accepted(pines(9), crop="lost"))["job_id"])
        assert (lost["status"], lost["attempt"]) == ("failed", 3)
        assert "Failed to allocate memory" in lost["error"]["message"]
        most = 8
        after = await served.result((await served.accepted(pines(10), crop="after"))["job_id"])
        assert (after["status"], after["worker"]) == ("succeeded", "worker-1")
        assert (await served.http.get("/api/queue/stats")).json()["active_workers"] == 1


@pytest.mark.slow
async def test_images_are_made_ready_while_a_gpu_looks_at_others(on_gpu: Calls, home: Path) -> None:
    """Its worker has two calls at once: neither of these would go on without the other."""
    async with crops(home, batch=1) as served:
        await eventually(lambda: _gpu_workers(served, 1), "the worker is here")
        both = threading.Barrier(2)

        def meet(tiles: int) -> None:
            both.wait(PATIENCE_S)

        on_gpu.before = meet
        jobs = [await served.accepted(pines(turn), crop=f"turn-{turn}") for turn in range(2)]
        ended = [await served.result(job["job_id"]) for job in jobs]
        assert [(one["status"], one["attempt"]) for one in ended] == [("succeeded", 1)] * 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="what a process was started with is asked of /proc")
async def test_a_gpu_has_a_queue_and_a_worker_of_its_own(home: Path) -> None:
    """`--gpus 0`: images go to its worker, which sees that device alone; after `kill -9` in the middle of a call it is
    back, and every image is done once. A processor says the same of them."""
    async with started(home, "--gpus", "0", "--workers", "1") as served:
        await eventually(lambda: _gpu_workers(served, 1), "the GPU's worker is here")
        cards = {card.name: card for card in await served.engine.workers()}
        assert sorted(cards) == ["cpu-1", "gpu-0"]
        assert (cards["gpu-0"].devices, cards["cpu-1"].devices) == (("0",), ())
        environ = await asyncio.to_thread(Path(f"/proc/{cards['gpu-0'].pid}/environ").read_text)
        assert "CUDA_VISIBLE_DEVICES=0" in environ.split("\0")
        large = await served.accepted(pines(1, LARGE), crop="large")
        small = [await served.accepted(pines(turn), crop=f"turn-{turn}") for turn in range(2, 6)]
        await killed_at(served, large["job_id"])
        ended = [await served.result(job["job_id"]) for job in (large, *small)]
        assert [(one["status"], one["worker"]) for one in ended] == [("succeeded", "gpu-0")] * 5
        assert ended[0]["attempt"] == 2
        assert {one["result"]["device"] for one in ended} == {"gpu"}
        assert crops_of(served) == ["large", "turn-2", "turn-3", "turn-4", "turn-5"]
        job = (await served.http.get(f"/v1/jobs/{large['job_id']}")).json()
        assert (job["queue"], job["task"]) == (GPU_QUEUE, "analyze_gpu")
        (here,) = await asyncio.to_thread(read, home, 2)
        (known,) = Classifier(device="cpu", threads=1).classify([here])
        assert known is not None
        for name, share in ended[1]["result"]["shares"].items():
            chosen = known.shares.argmax(axis=0)[known.valid] == known.card.classes.index(name)
            assert abs(float(chosen.mean()) - share) < 0.002, name


@pytest.mark.slow
async def test_a_gpu_that_is_not_there_ends_the_command_with_the_reason(home: Path) -> None:
    """Nobody waits for a worker that will never be."""
    environ = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
    process = await _command(home, environ, "--gpus", "17", "--workers", "1")
    async with asyncio.timeout(PATIENCE_S):
        _, said = await process.communicate()
    assert process.returncode not in (0, None)
    assert b"knows no GPU" in said or b"could not use the GPU" in said
    assert b"gpu-17 ended before it was up" in said


@NO_GPU
def test_a_gpu_says_what_a_processor_says(tmp_path: Path) -> None:
    """On a real one, of every pixel: the shares differ by less than what would change a verdict."""
    scenes = read(tmp_path, 0, 40, 80)
    pairs = zip(*(Classifier(device=device).classify(scenes) for device in ("gpu", "cpu")), strict=True)
    for one, other in pairs:
        assert one is not None and other is not None
        assert np.abs(one.shares - other.shares).max() < 1e-3


async def _gpu_workers(served: Crops, count: int) -> bool:
    stats = (await served.http.get("/api/queue/stats")).json()
    return bool(stats["gpu_workers"] == count)


@asynccontextmanager
async def started(home: Path, *flags: str) -> AsyncIterator[Crops]:
    """`python -m examples.crops`, as it is typed; stopped at the end, when it must end well."""
    process = await _command(home, runtime_with_gpu(home), *flags)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            url = json.loads(await process.stdout.readline())["url"]
        engine = connect(f"sqlite:///{home}/crops.db")
        await engine.open()
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
            yield Crops(http, engine, CropsSettings(results=f"sqlite:///{home}/results.db"))
        await engine.shut()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            _, said = await process.communicate()
    assert process.returncode == 0, said.decode()


async def _command(home: Path, environ: dict[str, str], *flags: str) -> asyncio.subprocess.Process:
    where = SimpleNamespace(engine=f"sqlite:///{home}/crops.db", results=f"sqlite:///{home}/results.db")
    options: dict[str, Any] = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    named = ("--engine", where.engine, "--results", where.results, "--port", "0", "--min-mb", "0.02")
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.crops", *named, *flags, cwd=ROOT, env=os.environ | environ, **options
    )

"""The trained networks, run by ONNX Runtime: tiles of many images in one call, on the device that is there."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from examples.crops.card import FOLDER, Card, read_card
from examples.crops.scene import Floats, Mask, Scene, coarser
from ropeway.runtime.process.devices import found_devices

__all__ = ["Classes", "Classifier", "Network"]

TILE = 128  # pixels that a tile answers for, each way: with its rim it is read as 136
TILES_AT_ONCE = {"cpu": 4, "gpu": 64}  # more gain nothing on a processor, and take its cache from others
FAMILIAR = 3.0  # deviations from the training's mean within which a pixel is like what was trained on

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
CUDA_OPTIONS = {
    "use_tf32": "0",  # else products are rounded to 10 bits of fraction, and a GPU says other shares than a processor
    "cudnn_conv_algo_search": "HEURISTIC",  # the default looks for the best way anew for each number of tiles
}
_CUDA_SAID = re.compile(r"CUDA failure \d+: [^;]+?(?= *;)")

log = logging.getLogger("crops")

Stop = Callable[[], bool]


class Classes(msgspec.Struct, frozen=True):
    """What an image's pixels were taken for.

    Attributes:
        shares: of each class, by class, row and column, at `pixel_m` or the image's own size.
        valid: where there are data; card: of the network that said so.
        familiar: the share of pixels that are like those it was trained on.
    """

    shares: Floats
    valid: Mask
    card: Card
    familiar: float
    pixel_m: float | None


class Network:
    """One network, loaded. Calls from several threads may overlap.

    On a GPU it has answered once when it is there: what it lacks is told now, not by the first job. Raises whatever the
    runtime does where the device cannot be used, here and later: it never goes on without it.
    """

    def __init__(self, path: Path, device: str, threads: int) -> None:
        runtime: Any = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others want the cores, too
        wanted = [(CUDA, CUDA_OPTIONS)] if device == "gpu" else []
        # Without a fallback: the runtime would go on without a GPU that fails, on a processor, and tell nobody.
        self._session = runtime.InferenceSession(str(path), options, providers=[*wanted, CPU], enable_fallback=0)
        self.card = read_card(path.with_suffix(".json"))
        self.device = "gpu" if CUDA in self._session.get_providers() else "cpu"
        if device == "gpu" and self.device != "gpu":
            raise OSError("CUDA's libraries or NVIDIA's driver are missing: see what it said above")
        if self.device == "gpu":
            self._warm_up()

    def run(self, tiles: Floats) -> Floats:
        """(n, bands, h, w) of reflectance -> (n, classes, h - 2 reach, w - 2 reach) of shares."""
        given = _filled_up(tiles) if self.device == "gpu" else tiles
        found: Floats = self._session.run(None, {"reflectance": given})[0]
        return found[: len(tiles)]

    def _warm_up(self) -> None:
        """Have it prepare for each number of tiles that a call may have."""
        side, count = TILE + 2 * self.card.reach, 1
        while count <= TILES_AT_ONCE["gpu"]:
            self.run(np.zeros((count, len(self.card.bands), side, side), np.float32))
            count *= 2


class Classifier:
    """All networks there are; an image goes to the one that uses most of its bands.

    Raises OSError when the models are not there, and ValueError when `device` is `gpu` and it cannot be used. `auto`
    takes a processor then, and logs why.
    """

    def __init__(self, folder: Path = FOLDER, device: str = "auto", threads: int | None = None) -> None:
        paths = sorted(folder.glob("crops-*.onnx"))
        if not paths:
            raise FileNotFoundError(f"there is no model in {folder}: python -m examples.crops.train makes them")
        threads = threads or max((os.cpu_count() or 2) - 1, 1)
        self.device, self.networks = _loaded(paths, device, threads)
        self.networks.sort(key=lambda network: -len(network.card.bands))

    def network_for(self, scene: Scene) -> Network | None:
        """None for an image that no network can be given: bands are missing, or the numbers are no reflectance."""
        if not scene.calibrated:
            return None
        return next((one for one in self.networks if set(one.card.bands) <= set(scene.names)), None)

    def classify(self, scenes: Sequence[Scene], stop: Sequence[Stop] | None = None) -> list[Classes | None]:
        """What is in each image; None for one that no network can be given, or whose `stop` said so.

        Tiles of all images that go to the same network share its calls. Each image is first brought to about the
        ground size of a pixel that the network knows.
        """
        found: list[Classes | None] = [None] * len(scenes)
        for network in self.networks:
            mine = [n for n, scene in enumerate(scenes) if self.network_for(scene) is network]
            jobs = {n: _Job(_prepared(scenes[n], network.card), network.card) for n in mine}
            for group in _groups(_tiles(jobs, stop), TILES_AT_ONCE[network.device]):
                answers = network.run(np.stack([jobs[n].tile(row, column) for n, row, column in group]))
                for (n, row, column), answer in zip(group, answers, strict=True):
                    jobs[n].put(row, column, answer)
            found = [jobs[n].classes if n in jobs else known for n, known in enumerate(found)]
        if stop is not None:
            found = [None if stop[n]() else known for n, known in enumerate(found)]
        return found


class _Job:
    """An image on its way: its padded pixels, and the answers as far as they are there."""

    def __init__(self, scene: Scene, card: Card) -> None:
        self._scene = scene
        self._card = card
        chosen = scene.bands[[scene.names.index(name) for name in card.bands]]
        means = np.asarray(card.means, np.float32)[:, None, None]
        chosen = np.where(scene.valid, chosen, means)  # what has no data should tempt nobody beside it
        reach = card.reach
        self.rows, self.columns = (range(0, side, TILE) for side in scene.size)
        below, right = (
            len(tiles) * TILE - side for tiles, side in ((self.rows, scene.size[0]), (self.columns, scene.size[1]))
        )
        self._padded = np.pad(chosen, ((0, 0), (reach, reach + below), (reach, reach + right)), "edge")
        self._shares = np.zeros((len(card.classes), *scene.size), np.float32)
        z = np.abs(chosen - means) / np.asarray(card.deviations, np.float32)[:, None, None]
        self._familiar = float((z[:, scene.valid] < FAMILIAR).all(axis=0).mean()) if scene.valid.any() else 0.0

    def tile(self, row: int, column: int) -> Floats:
        side = TILE + 2 * self._card.reach
        found: Floats = self._padded[:, row : row + side, column : column + side]
        return found

    def put(self, row: int, column: int, answer: Floats) -> None:
        part = self._shares[:, row : row + TILE, column : column + TILE]
        part[:] = answer[:, : part.shape[1], : part.shape[2]]

    @property
    def classes(self) -> Classes:
        return Classes(self._shares, self._scene.valid, self._card, round(self._familiar, 3), self._scene.pixel_m)


def _prepared(scene: Scene, card: Card) -> Scene:
    if scene.pixel_m is None:
        return scene
    factor = round(card.pixel_m / scene.pixel_m)
    return coarser(scene, max(min(factor, min(scene.size)), 1))


def _tiles(jobs: dict[int, _Job], stop: Sequence[Stop] | None) -> Iterator[tuple[int, int, int]]:
    for n, job in jobs.items():
        for row in job.rows:
            if stop is not None and stop[n]():
                break
            for column in job.columns:
                yield n, row, column


def _groups(tiles: Iterator[tuple[int, int, int]], size: int) -> Iterator[list[tuple[int, int, int]]]:
    group: list[tuple[int, int, int]] = []
    for tile in tiles:
        group.append(tile)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _loaded(paths: Sequence[Path], asked: str, threads: int) -> tuple[str, list[Network]]:
    """The networks, and what they run on. Raises ValueError when that was to be a GPU and cannot."""
    device = _device(asked)
    try:
        return device, [Network(path, device, threads) for path in paths]
    except Exception as error:  # the runtime has many kinds of them, of no common one
        if device != "gpu":
            raise
        said = _CUDA_SAID.search(str(error))
        told = f"ONNX Runtime could not use the GPU: {said[0] if said else error}"
        if asked == "gpu":
            raise ValueError(told) from error
        log.warning("%s; the networks run on a processor", told)
    return "cpu", [Network(path, "cpu", threads) for path in paths]


def _device(asked: str) -> str:
    """What to load the networks on. Raises ValueError when that was to be a GPU and the runtime is not made for one."""
    runtime: Any = import_module("onnxruntime")
    can = CUDA in runtime.get_available_providers()
    if asked == "gpu" and not can:
        raise ValueError("this ONNX Runtime knows no GPU: install onnxruntime-gpu in its place, or say device=cpu")
    if not can or asked == "cpu" or (asked == "auto" and not found_devices()):
        return "cpu"
    runtime.preload_dlls()  # CUDA's libraries, where pip put them: the loader does not look there
    return "gpu"


def _filled_up(tiles: Floats) -> Floats:
    """As many tiles as the next power of two, with empty ones: few shapes, so that each is prepared for but once."""
    lacking = (1 << (len(tiles) - 1).bit_length()) - len(tiles)
    return np.concatenate((tiles, np.zeros((lacking, *tiles.shape[1:]), tiles.dtype))) if lacking else tiles

"""What happens to images, step by step: all of a call go through each step together."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from examples.crops.classifier import Classes, Classifier
from examples.crops.images import ImageRefused, kind_of
from examples.crops.indices import IndexMap, indices, summary
from examples.crops.maps import class_map, index_map, picture
from examples.crops.results import ResultStore
from examples.crops.scene import Scene, read_scene
from examples.crops.shapes import Analysis, ImageFacts, Maps, Verdict
from examples.crops.verdict import verdict
from ropeway import Context, Fail, File

__all__ = ["STEPS", "analyzed"]

STEPS = {
    "download": (0.2, "the image is here"),
    "load model": (0.3, "the networks are in memory"),
    "preprocess": (0.4, "reading bands, computing indices"),
    "inference": (0.6, "the network looks at every pixel"),
    "postprocess": (0.8, "verdict and maps"),
    "store": (0.9, "keeping maps and result"),
    "done": (1.0, ""),
}
"""How far a job is when a step of it begins, and what is said of it."""


def analyzed(
    paths: Sequence[Path],
    crop_ids: Sequence[str],
    ctxs: Sequence[Context],
    classifier: Classifier,
    store: ResultStore,
) -> list[Analysis | Exception]:
    """An analysis for each image, or what is wrong with it."""
    images = [_Image(*one) for one in zip(paths, crop_ids, ctxs, strict=True)]
    with ThreadPoolExecutor(min(len(images), os.cpu_count() or 2)) as threads:

        def step(name: str, act: Callable[[_Image], None]) -> None:
            """Have every image take a step; GDAL and numpy compute outside of Python's lock."""
            for image in images:
                image.tell(name)
            list(threads.map(lambda image: image.take(act), images))

        step("download", _Image.look)
        step("load model", lambda image: None)  # done as the worker started: see tasks.classifier
        step("preprocess", _Image.read)
        _infer(images, classifier)
        step("postprocess", _Image.judge)
    for image in images:
        image.tell("store")
        image.take(lambda one: one.keep(classifier, store))
    return [image.end for image in images]


def _infer(images: Sequence[_Image], classifier: Classifier) -> None:
    going = [image for image in images if image.goes_on]
    for image in going:
        image.tell("inference")
    stops = [lambda image=image: image.ctx.cancelled for image in going]
    found = classifier.classify([image.scene for image in going], stops) if going else []
    for image, classes in zip(going, found, strict=True):
        image.classes = classes


class _Image:
    """One image of a call, as far as it has come."""

    scene: Scene
    indices: dict[str, IndexMap]
    verdict: Verdict
    pictures: dict[str, bytes]
    end: Analysis | Exception

    def __init__(self, path: Path, crop_id: str, ctx: Context) -> None:
        self.ctx = ctx
        self.classes: Classes | None = None
        self.goes_on = True
        self._path = path
        self._crop_id = crop_id
        self._began_s = time.perf_counter()

    def tell(self, step: str) -> None:
        if self.goes_on:
            fraction, message = STEPS[step]
            self.ctx.progress(fraction, step, message)

    def take(self, act: Callable[[_Image], None]) -> None:
        """One step; what is wrong with the image ends its own way only, and so does a cancel."""
        if self.goes_on and self.ctx.cancelled:
            self._give_up(Fail("stopped", code="stopped"))  # nobody looks at it: the job ends as it was asked to
        if not self.goes_on:
            return
        try:
            act(self)
        except ImageRefused as refused:
            self._give_up(Fail(str(refused), code="image_refused"))
        except Exception as error:
            self._give_up(error)

    def look(self) -> None:
        kind_of(self._path.name)

    def read(self) -> None:
        self.scene = read_scene(self._path, kind_of(self._path.name))
        self.indices = indices(self.scene)

    def judge(self) -> None:
        self.verdict = verdict(self.scene, self.indices, self.classes)
        self.pictures = {"picture": picture(self.scene)}
        if "ndvi" in self.indices:
            self.pictures["ndvi"] = index_map(self.indices["ndvi"])
        if self.classes is not None:
            self.pictures["classes"] = class_map(self.classes)

    def keep(self, classifier: Classifier, store: ResultStore) -> None:
        """Maps with the job; the result in the database, unless the job was cancelled meanwhile.

        Only then: whoever lost its lease, or must end for another reason, leaves the row to the attempt that comes
        after it, which may have written it already.
        """
        files = {name: self._kept(name, png) for name, png in self.pictures.items()}
        analysis = self._analysis(Maps(**files), classifier.device)
        store.keep(self.ctx.job_id, analysis)
        if self.ctx.stop_reason == "cancel":
            store.forget(self.ctx.job_id)
            self._give_up(Fail("stopped", code="stopped"))
            return
        self.end = analysis
        self.tell("done")

    def _kept(self, name: str, png: bytes) -> File:
        return self.ctx.artifact(f"{name}.png", png, "image/png").file

    def _analysis(self, maps: Maps, device: str) -> Analysis:
        scene, said = self.scene, self.verdict
        told = {name: found for name, index in self.indices.items() if (found := summary(index)) is not None}
        high, wide = scene.size
        return Analysis(
            crop_type=said.crop_type,
            confidence=said.confidence,
            soil_health=said.soil_health,
            ndvi=said.ndvi,
            irrigation_needed=said.irrigation_needed,
            timestamp=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            model_version=None if self.classes is None else self.classes.card.version,
            crop_id=self._crop_id,
            shares=said.shares,
            cover=said.cover,
            familiar=said.familiar,
            indices=told,
            image=ImageFacts(wide, high, scene.names, _percent(scene), scene.pixel_m, scene.crs),
            maps=maps,
            notes=said.notes,
            device=device,
            seconds=round(time.perf_counter() - self._began_s, 3),
        )

    def _give_up(self, why: Exception) -> None:
        self.goes_on = False
        self.end = why


def _percent(scene: Scene) -> float:
    return round(100 * float(scene.valid.mean()), 1)

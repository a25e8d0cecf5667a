"""An image as numbers: its bands as reflectance, where it has data, and how large a pixel is on the ground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from examples.crops.images import ImageRefused, opened, planned

__all__ = ["Floats", "Mask", "Scene", "coarser", "read_scene"]

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SENTINEL_SCALE = 10_000.0  # of Sentinel-2's own products, and of most that follow them
MOST_REFLECTANCE = 2.0  # snow and glints reach 1 and a little more
LEAST_SCALED = 50.0  # the brightest of an image in ten-thousandths is well above
DEGREE_M = 111_320.0


class Scene(msgspec.Struct, frozen=True):
    """What was read of an image.

    Attributes:
        names: of its bands, as in `bands.BANDS`; bands: each by row and column, as reflectance of 0 to about 1.
        valid: where there are data.
        calibrated: whether the numbers are known to be reflectance. Otherwise they are the file's, brought to 0 to 1:
            ratios of bands are then only roughly what they should be.
        pixel_m: metres on the ground; None when the file does not tell.
        crs: the coordinate system as text; None as well.
        notes: what somebody who reads the result should know of this.
    """

    names: tuple[str, ...]
    bands: Floats
    valid: Mask
    calibrated: bool
    pixel_m: float | None
    crs: str | None
    notes: tuple[str, ...]

    def band(self, name: str) -> Floats:
        found: Floats = self.bands[self.names.index(name)]
        return found

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.valid.shape[0], self.valid.shape[1]


def read_scene(path: Path, kind: str) -> Scene:
    """All of an image. Blocks. Raises ImageRefused for what cannot be read, and for one without any data."""
    with opened(path, kind) as image:
        plan = planned(image)
        numbers = list(plan.numbers)
        raw = image.read(numbers)
        valid = (image.read_masks(numbers) > 0).all(axis=0)
        scales = [image.scales[number - 1] for number in numbers]
        offsets = [image.offsets[number - 1] for number in numbers]
        pixel_m = _pixel_m(image)
        crs = None if image.crs is None else image.crs.to_string()[:120]
    if np.issubdtype(raw.dtype, np.floating):
        valid &= np.isfinite(raw).all(axis=0)
    valid &= raw.any(axis=0)  # nothing in every band is what an edge without data holds when nobody declared it
    if not valid.any():
        raise ImageRefused("the image has no data: every pixel is empty, or marked as empty")
    bands, calibrated, told = _reflectance(raw, valid, scales, offsets)
    bands[:, ~valid] = 0
    notes = [f"bands are known {plan.how}", told]
    if pixel_m is None:
        notes.append("the file does not tell how large a pixel is")
    return Scene(plan.names, bands, valid, calibrated, pixel_m, crs, tuple(notes))


def coarser(scene: Scene, factor: int) -> Scene:
    """The scene with `factor` x `factor` pixels as one, of those that have data their mean; what is over is cut off."""
    if factor <= 1:
        return scene
    high, wide = (side // factor for side in scene.size)
    cut = (slice(0, high * factor), slice(0, wide * factor))
    shape = (high, factor, wide, factor)
    counts = scene.valid[cut].reshape(shape).sum(axis=(1, 3))
    sums = scene.bands[:, *cut].reshape(len(scene.names), *shape).sum(axis=(2, 4))
    means = (sums / np.maximum(counts, 1)).astype(np.float32)
    pixel_m = None if scene.pixel_m is None else scene.pixel_m * factor
    return msgspec.structs.replace(scene, bands=means, valid=counts * 2 >= factor * factor, pixel_m=pixel_m)


def _reflectance(
    raw: npt.NDArray[Any], valid: Mask, scales: list[float], offsets: list[float]
) -> tuple[Floats, bool, str]:
    """The bands as reflectance, whether they are that, and in words how it is known."""
    bands = raw.astype(np.float32)
    if any(scale != 1 for scale in scales) or any(offsets):
        bands *= np.asarray(scales, np.float32)[:, None, None]
        bands += np.asarray(offsets, np.float32)[:, None, None]
        return bands, True, "reflectance by the scales and offsets in the file"
    if raw.dtype == np.uint8:
        return bands / np.float32(255), False, "8-bit numbers are no reflectance: indices are rough"
    brightest = float(np.percentile(bands[:, valid][:, :: max(1, int(valid.sum()) // 100_000)], 99.5))
    if np.issubdtype(raw.dtype, np.floating) and brightest <= MOST_REFLECTANCE:
        return bands, True, "numbers of 0 to 1 are taken as reflectance"
    if LEAST_SCALED < brightest <= MOST_REFLECTANCE * SENTINEL_SCALE:
        return bands / np.float32(SENTINEL_SCALE), True, "whole numbers are taken as ten-thousandths of reflectance"
    scale = max(brightest, 1e-6)
    return bands / np.float32(scale), False, "the numbers are no known reflectance: indices are rough"


def _pixel_m(image: Any) -> float | None:
    """Metres a pixel, of a file that has coordinates."""
    step = abs(image.transform.a) or abs(image.transform.b)
    if image.crs is None or not step:
        return None
    if image.crs.is_geographic:
        return float(step * DEGREE_M * np.cos(np.radians((image.bounds.top + image.bounds.bottom) / 2)))
    unit, factor = image.crs.units_factor
    return float(step * factor) if unit else None

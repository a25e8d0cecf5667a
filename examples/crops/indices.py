"""Spectral indices, each from its bands and nothing else, only where there are data and the index is defined.

| index | formula | from |
|---|---|---|
| NDVI | (N - R) / (N + R) | Rouse et al. 1974 |
| NDWI | (G - N) / (G + N): open water | McFeeters 1996 |
| NDMI | (N - S1) / (N + S1): water in leaves | Gao 1996 |
| SAVI | 1.5 (N - R) / (N + R + 0.5) | Huete 1988 |
| EVI | 2.5 (N - R) / (N + 6 R - 7.5 B + 1) | Huete et al. 2002 |
| BSI | ((S1 + R) - (N + B)) / ((S1 + R) + (N + B)): bare soil | Rikimaru et al. 2002 |
| VARI | (G - R) / (G + R - B): green of what the eye sees | Gitelson et al. 2002 |
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from examples.crops.scene import Floats, Mask, Scene

__all__ = ["BARE", "FULL", "IndexMap", "Summary", "cover", "indices", "summary"]

BARE, FULL = 0.2, 0.5  # NDVI of bare ground and of full cover: Sobrino, Jiménez-Muñoz, Paolini 2004

_EPSILON = 1e-6


class IndexMap(msgspec.Struct, frozen=True):
    """An index by row and column, and where it is defined; elsewhere its values mean nothing."""

    values: Floats
    valid: Mask


class Summary(msgspec.Struct, frozen=True):
    """An index over an image. `low` and `high`: a tenth of the pixels is below, and above."""

    mean: float
    median: float
    low: float
    high: float
    pixels: int


def _ratio(over: Floats, under: Floats) -> tuple[Floats, Mask]:
    defined: Mask = np.abs(under) > _EPSILON
    return np.divide(over, under, out=np.zeros_like(over), where=defined), defined


def _difference(one: str, other: str) -> Callable[[Scene], tuple[Floats, Mask]]:
    return lambda scene: _ratio(scene.band(one) - scene.band(other), scene.band(one) + scene.band(other))


def _savi(scene: Scene) -> tuple[Floats, Mask]:
    near, red = scene.band("B08"), scene.band("B04")
    return _ratio(np.float32(1.5) * (near - red), near + red + np.float32(0.5))


def _evi(scene: Scene) -> tuple[Floats, Mask]:
    near, red, blue = (scene.band(name) for name in ("B08", "B04", "B02"))
    values, defined = _ratio(np.float32(2.5) * (near - red), near + 6 * red - np.float32(7.5) * blue + 1)
    return values, defined & (np.abs(values) <= 2)  # over bright ground the denominator passes through nothing


def _bsi(scene: Scene) -> tuple[Floats, Mask]:
    bright = scene.band("B11") + scene.band("B04")
    green = scene.band("B08") + scene.band("B02")
    return _ratio(bright - green, bright + green)


def _vari(scene: Scene) -> tuple[Floats, Mask]:
    blue, green, red = (scene.band(name) for name in ("B02", "B03", "B04"))
    values, defined = _ratio(green - red, green + red - blue)
    return values, defined & (np.abs(values) <= 1)


_INDICES: dict[str, tuple[tuple[str, ...], bool, Callable[[Scene], tuple[Floats, Mask]]]] = {
    # name: what bands it wants, whether they must be reflectance, and how it is computed
    "ndvi": (("B04", "B08"), False, _difference("B08", "B04")),
    "ndwi": (("B03", "B08"), False, _difference("B03", "B08")),
    "ndmi": (("B08", "B11"), False, _difference("B08", "B11")),
    "savi": (("B04", "B08"), True, _savi),
    "evi": (("B02", "B04", "B08"), True, _evi),
    "bsi": (("B02", "B04", "B08", "B11"), False, _bsi),
    "vari": (("B02", "B03", "B04"), False, _vari),
}


def indices(scene: Scene) -> dict[str, IndexMap]:
    """Every index that the scene has the bands for."""
    found = {}
    for name, (wanted, calibrated, compute) in _INDICES.items():
        if set(wanted) <= set(scene.names) and (scene.calibrated or not calibrated):
            values, defined = compute(scene)
            found[name] = IndexMap(values, scene.valid & defined)
    return found


def summary(index: IndexMap, where: Mask | None = None) -> Summary | None:
    """What it comes to, over all of the image or a part of it; None when it is defined nowhere there."""
    chosen = index.values[index.valid if where is None else index.valid & where]
    if not chosen.size:
        return None
    low, median, high = np.percentile(chosen, (10, 50, 90))
    mean, median, low, high = (round(float(value), 4) for value in (chosen.mean(dtype=np.float64), median, low, high))
    return Summary(mean, median, low, high, int(chosen.size))


def cover(ndvi: IndexMap) -> float:
    """The share of the ground that green leaves cover: from NDVI's place between bare and full, squared.

    Carlson, Ripley 1997, with the thresholds above.
    """
    chosen = ndvi.values[ndvi.valid]
    if not chosen.size:
        return 0.0
    return float(np.mean(np.clip((chosen - BARE) / (FULL - BARE), 0, 1) ** 2, dtype=np.float64))

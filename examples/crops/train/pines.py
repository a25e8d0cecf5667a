"""Indian Pines: a real scene with real labels, as a Sentinel-2 would have seen it.

Baumgardner, Biehl, Landgrebe (2015), "220 Band AVIRIS Hyperspectral Image Data Set: June 12, 1992 Indian Pine Test Site
3", Purdue University Research Repository, doi:10.4231/R7RX991C, CC BY 3.0. It comes inside the package `tensorly`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from examples.crops.bands import BANDS, SIX

__all__ = ["CLASSES", "GUARD", "Floats", "Split", "labels", "reflectance", "splits"]

Floats = npt.NDArray[np.float32]

CLASSES = ("row crop", "small grain", "pasture and hay", "woods", "built")
"""Sixteen classes made five: what a few bands can tell apart where no field has been seen before. Corn and soybean are
one: on that day both are rows of seedlings on bare ground, and a network told them apart no better than by chance."""

_CLASS_OF = (-1, 2, 0, 0, 0, 2, 2, 2, 2, 1, 0, 0, 0, 1, 3, 4, 4)  # by the number in the ground truth; 0 has no label

GAIN, OFFSET = (
    50.0,
    1000.0,
)  # of the stored numbers to radiance in W/m²/sr/µm; the data set's own notes: 500, in µW/cm²/nm/sr
SUN_ZENITH_DEG = 30.0  # about, at the hour of the flight: it scales all bands alike

DARK, DARK_PERCENT = 0.01, 0.1  # what the darkest thousandth of the ground is taken to reflect: Chavez's 1 %

SCATTERING = 2  # the power of the wavelength in moderately clear air, as there

BLOCK = 24  # pixels: the scene is dealt out in squares of 480 m, about a field
GUARD = 4  # pixels between training and held-out ones: no patch of one sees a pixel of the other
HELD_OUT = 4  # one square of so many is held out


class Split:
    """Which pixels are trained on, and which are held out: whole squares, with a strip between that is neither."""

    def __init__(self, number: int, marks: npt.NDArray[np.int64]) -> None:
        self.number = number
        rows, columns = marks.shape
        deal = np.random.default_rng(number).permutation((rows // BLOCK + 1) * (columns // BLOCK + 1))
        squares = (deal % HELD_OUT == 0).reshape(rows // BLOCK + 1, columns // BLOCK + 1)
        held = np.kron(squares, np.ones((BLOCK, BLOCK), bool))[:rows, :columns].astype(bool)
        near = held.copy()
        for row, column in np.argwhere(held):
            top, left = max(row - 2 * GUARD, 0), max(column - 2 * GUARD, 0)
            near[top : row + 2 * GUARD + 1, left : column + 2 * GUARD + 1] = True
        self.held_out = held & (marks >= 0)
        self.trained = ~near & (marks >= 0)


def splits(marks: npt.NDArray[np.int64], how_many: int) -> list[Split]:
    return [Split(number, marks) for number in range(how_many)]


def labels() -> npt.NDArray[np.int64]:
    """The class of each pixel, as a place in CLASSES; -1 where there is none."""
    return np.asarray(_CLASS_OF)[_stored("Indian_pines_gt.npy").astype(np.int64)]


def reflectance() -> Floats:
    """Six bands of Sentinel-2 by rows and columns, 20 m a pixel: reflectance of the ground, 0 to about 1.

    What the air adds is taken off by the darkest pixels in blue, and for the other bands by how light scatters: Chavez
    1988, "An improved dark-object subtraction technique".
    """
    radiance = np.maximum((_stored("Indian_pines_corrected.npy").astype(np.float64) - OFFSET) / GAIN, 0)
    centres = _centres_nm()
    seen = []
    for name in SIX:
        band = BANDS[name]
        weights = np.exp(-4 * np.log(2) * ((centres - band.centre_nm) / band.width_nm) ** 2)
        mean = radiance @ (weights / weights.sum())
        seen.append(np.pi * mean / (band.sun * np.cos(np.radians(SUN_ZENITH_DEG))))
    above = np.stack(seen)
    blue = np.percentile(above[0], DARK_PERCENT) - DARK
    scattered = np.asarray([(BANDS["B02"].centre_nm / BANDS[name].centre_nm) ** SCATTERING for name in SIX])
    ground: Floats = np.maximum(above - blue * scattered[:, None, None], 0).astype(np.float32)
    return ground


def _centres_nm() -> npt.NDArray[np.float64]:
    """The 200 bands that are kept, as the package lists them: four spectrometers, less where water takes the light."""
    runs = (
        (400.02, 696.50, 31),
        (686.91, 1282.55, 63),
        (1273.00, 1352.68, 9),
        (1422.34, 1819.08, 41),
        (1953.26, 2202.30, 26),
        (2260.22, 2270.15, 2),
        (2232.07, 2498.96, 28),
    )
    return np.concatenate([np.linspace(*run) for run in runs])


def _stored(name: str) -> npt.NDArray[np.uint16]:
    """An array of the package's data; the package itself is not imported: it would bring SciPy."""
    found = find_spec("tensorly")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the training scene comes with tensorly: pip install --no-deps tensorly==0.10.0")
    loaded: npt.NDArray[np.uint16] = np.load(Path(found.submodule_search_locations[0], "datasets", "data", name))
    return loaded

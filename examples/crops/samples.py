"""Images to try things out with: `python -m examples.crops.samples` writes them here.

Two small real scenes lie in `scenes/`. As uploads are refused below 5 MB, each pixel of theirs becomes a square of
equal ones, with coordinates to match: the picture and what is found in it stay the same.
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

__all__ = ["SAMPLES", "sample", "sample_bytes"]

SCENES = Path(__file__).with_name("scenes")
SAMPLES = {
    "indian-pines.tif": "Fields in Indiana in June 1992: six bands, 20 m a pixel. The network was trained on part",
    "sentinel-2.tif": "A Sentinel-2 image, four bands, 10 m a pixel. The network has never seen it",
}
LEAST_BYTES = 6_000_000


async def sample(name: str) -> bytes:
    """A sample as a GeoTIFF."""
    return await asyncio.to_thread(sample_bytes, name)


@cache
def sample_bytes(name: str, least_bytes: int = LEAST_BYTES, turn: int = 0, pixel_m: float | None = None) -> bytes:
    """The same, in this thread. `turn` moves its pixels round, so that one scene makes many different images.

    `pixel_m`: what the file says a pixel is on the ground, as if the scene were so much larger; else as it is true.
    """
    rasterio: Any = import_module("rasterio")
    with rasterio.open(SCENES / name) as scene:
        bands, profile, told = scene.read(), scene.profile, scene.descriptions
    times = int(np.ceil(np.sqrt(least_bytes / bands.nbytes)))
    whole = np.roll(bands, turn, axis=2).repeat(times, axis=1).repeat(times, axis=2)
    corner = profile["transform"]
    across, down = (corner.a / times, corner.e / times) if pixel_m is None else (pixel_m, -pixel_m)
    transform = type(corner)(across, 0, corner.c, 0, down, corner.f)
    keep = ("crs", "nodata", "dtype", "count")
    about = {
        "driver": "GTiff",
        "height": whole.shape[1],
        "width": whole.shape[2],
        "interleave": "band",
        "transform": transform,
    }
    with rasterio.io.MemoryFile() as memory:
        with memory.open(**about, **{name: profile[name] for name in keep}) as image:
            image.write(whole)
            image.descriptions = told
        written: bytes = memory.read()
    return written


def main(folder: Annotated[Path, typer.Argument(help="Where they go.")] = Path()) -> None:
    """Write the samples as files."""
    for name, about in SAMPLES.items():
        path = folder / name
        path.write_bytes(sample_bytes(name))
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB  {about}")


if __name__ == "__main__":
    typer.run(main)

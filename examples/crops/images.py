"""What an uploaded image is: told by its bytes, not by its name. GeoTIFF, PNG and JPEG, read by GDAL (rasterio).

1. GDAL is given the one driver that the bytes call for: it is a hundred parsers, and some of them open other files.
2. It looks at nothing beside the file (`.aux.xml`, `.ovr`): an upload is alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from examples.crops.bands import FOUR, SIX, band_named

__all__ = ["EXTENSIONS", "ImageRefused", "Plan", "check_image", "kind_of", "opened", "sniffed"]

EXTENSIONS = {".tif": "GTiff", ".tiff": "GTiff", ".geotiff": "GTiff", ".png": "PNG", ".jpg": "JPEG"}
MAGIC_BYTES = 8
MOST_SIDE = 20_000  # pixels
MOST_NUMBERS = 256 * 1024**2  # pixels x bands: 1 GiB as 32-bit numbers, whatever the file was packed to

_MAGIC = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",  # BigTIFF
    b"MM\0+": "GTiff",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_TAIL_BYTES = 64

_ENVIRONMENT = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO", "GDAL_CACHEMAX": 64}

warnings.filterwarnings("ignore", message="Dataset has no geotransform")  # a PNG has none, and nobody expects it


class ImageRefused(ValueError):
    """An image that cannot be analysed; its text says why, for whoever sent it."""


class Plan(NamedTuple):
    """Which of an image's bands are which: names, and their numbers in the file from 1. `how` tells how it is known."""

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    how: str

    @property
    def has_infrared(self) -> bool:
        return "B08" in self.names


def kind_of(filename: str) -> str:
    """What a name says that the file is. Raises ImageRefused for a name that says nothing we take."""
    suffix = Path(filename).suffix.lower()
    if suffix not in EXTENSIONS:
        told = f"{suffix!r} is no type that is taken" if suffix else "the file's name has no type"
        raise ImageRefused(f"{told}: {', '.join(EXTENSIONS)}")
    return EXTENSIONS[suffix]


def sniffed(first: bytes, kind: str) -> None:
    """Look whether bytes begin as this kind does. Raises ImageRefused."""
    found = next((name for magic, name in _MAGIC.items() if first.startswith(magic)), None)
    if found is None:
        raise ImageRefused("the file holds no TIFF, PNG or JPEG image, whatever its name says")
    if found != kind:
        raise ImageRefused(f"the file's name says {kind}, and its content is {found}")


@contextmanager
def opened(path: Path, kind: str) -> Iterator[Any]:
    """The image, open. Raises ImageRefused for what GDAL cannot read, in the block too."""
    rasterio: Any = import_module("rasterio")  # it comes without types
    try:
        with rasterio.Env(**_ENVIRONMENT), rasterio.open(path, driver=kind) as image:
            yield image
    except rasterio.errors.RasterioError as error:
        raise ImageRefused(f"the image cannot be read: {str(error).replace(str(path), 'the file')[:300]}") from error


def check_image(path: Path, kind: str) -> Plan:
    """Open it, and read its last block, so that one that was cut off is found here. A few ms; blocks.

    Raises ImageRefused for what cannot be read, is too large when unpacked, or has no bands to make anything of.
    """
    _check_end(path, kind)
    with opened(path, kind) as image:
        if max(image.width, image.height) > MOST_SIDE or image.width * image.height * image.count > MOST_NUMBERS:
            raise ImageRefused(
                f"{image.width} x {image.height} pixels of {image.count} bands are too many: at most {MOST_SIDE} a "
                f"side, and {MOST_NUMBERS:,} numbers in all"
            )
        plan = planned(image)
        if kind == "GTiff":
            _read_last_block(image)
    return plan


def planned(image: Any) -> Plan:
    """Which bands are which: by their descriptions, by their colours, or by their number.

    Raises ImageRefused when that leaves nothing to work with.
    """
    named: dict[str, int] = {}
    for number, text in zip(image.indexes, image.descriptions, strict=True):
        name = band_named(text)
        if name is not None:
            named.setdefault(name, number)
    if {"B04", "B08"} <= named.keys():
        names = tuple(name for name in SIX if name in named)
        return Plan(names, tuple(named[name] for name in names), "by their descriptions")
    colours = {colour.name: number for number, colour in zip(image.indexes, image.colorinterp, strict=True)}
    if {"red", "green", "blue"} <= colours.keys() and (image.count == 3 or "alpha" in colours):
        return Plan(("B02", "B03", "B04"), tuple(colours[one] for one in ("blue", "green", "red")), "by their colours")
    for names in (FOUR, SIX):
        if image.count == len(names):
            return Plan(names, tuple(image.indexes), f"by their order, as {' '.join(names)}")
    raise ImageRefused(
        f"of {image.count} band{'s' * (image.count != 1)} none is known to be red and none near infrared: describe "
        f"them ({', '.join(SIX)}, or blue, green, red, nir, swir1, swir2), or send 4 or 6 of them in that order"
    )


def _check_end(path: Path, kind: str) -> None:
    """A PNG or a JPEG ends with a mark of its own; that it is there costs nothing to see."""
    mark = _ENDS.get(kind)
    if mark is None:
        return
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _TAIL_BYTES, 0))
        if mark not in file.read():
            raise ImageRefused(f"the {kind} image is cut off: its end is not there")


def _read_last_block(image: Any) -> None:
    high, wide = image.block_shapes[0]
    row, column = (image.height - 1) // high * high, (image.width - 1) // wide * wide
    windows: Any = import_module("rasterio.windows")
    image.read(window=windows.Window(column, row, image.width - column, image.height - row))

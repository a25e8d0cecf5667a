"""Maps for people: PNG images of an index, of the classes and of the scene as the eye would see it."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from examples.crops.classifier import Classes
from examples.crops.indices import IndexMap
from examples.crops.scene import Mask, Scene

__all__ = ["COLOURS", "class_map", "index_map", "picture"]

MOST_SIDE = 1_024  # pixels: what is larger is thinned out for the map

Bytes8 = npt.NDArray[np.uint8]

_RAMP = (  # value, then red, green, blue: bare ground brown, full cover dark green, water and shade grey
    (-1.0, 70, 80, 95),
    (0.0, 214, 206, 190),
    (0.2, 222, 190, 130),
    (0.35, 232, 222, 130),
    (0.5, 150, 200, 90),
    (0.7, 55, 150, 65),
    (1.0, 8, 80, 40),
)

COLOURS = {
    "row crop": (240, 196, 25),
    "small grain": (222, 160, 90),
    "pasture and hay": (125, 190, 70),
    "woods": (30, 105, 55),
    "built": (150, 145, 150),
}
_UNNAMED = (90, 90, 200)


def index_map(index: IndexMap) -> bytes:
    """An index of -1 to 1 in colours; where it is not defined one can look through."""
    step = _step(index.valid)
    values, valid = index.values[::step, ::step], index.valid[::step, ::step]
    places = [row[0] for row in _RAMP]
    colours = [np.interp(values, places, [row[part] for row in _RAMP]) for part in (1, 2, 3)]
    return _png(np.stack(colours).astype(np.uint8), valid)


def class_map(classes: Classes) -> bytes:
    """Each pixel in the colour of its class."""
    step = _step(classes.valid)
    winners = classes.shares[:, ::step, ::step].argmax(axis=0)
    palette = np.asarray([COLOURS.get(name, _UNNAMED) for name in classes.card.classes], np.uint8)
    return _png(palette[winners].transpose(2, 0, 1), classes.valid[::step, ::step])


def picture(scene: Scene) -> bytes:
    """Red, green and blue, as bright as makes most of the image visible."""
    step = _step(scene.valid)
    valid = scene.valid[::step, ::step]
    shown = []
    for name in ("B04", "B03", "B02"):
        band = scene.bands[scene.names.index(name if name in scene.names else "B04"), ::step, ::step]
        dark, bright = np.percentile(band[valid], (1, 99)) if valid.any() else (0.0, 1.0)
        shown.append(np.clip((band - dark) / max(bright - dark, 1e-6), 0, 1) * 255)
    return _png(np.stack(shown).astype(np.uint8), valid)


def _step(valid: Mask) -> int:
    longest: int = max(valid.shape)
    return -(-longest // MOST_SIDE)


def _png(colours: Bytes8, valid: Mask) -> bytes:
    """A PNG of red, green, blue and what one can look through: ISO/IEC 15948, with no filter on its rows."""
    high, wide = valid.shape
    rows = np.empty((high, 1 + 4 * wide), np.uint8)
    rows[:, 0] = 0
    rows[:, 1:].reshape(high, wide, 4)[:] = np.dstack([*colours, np.where(valid, 255, 0).astype(np.uint8)])
    head = struct.pack(">IIBBBBB", wide, high, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

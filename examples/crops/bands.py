"""The bands that this example knows, by Sentinel-2's names, and how files call them."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["BANDS", "FOUR", "SIX", "Band", "band_named"]


class Band(NamedTuple):
    """A band of Sentinel-2's instrument. `centre_nm` and `width_nm` as of Sentinel-2A (ESA, S2 MSI user guide).

    `sun` is the light that comes in above the air, in W/m²/µm (the mean of solar irradiance that product metadata
    give for it), and `also` what else files call it.
    """

    name: str
    centre_nm: float
    width_nm: float
    sun: float
    also: tuple[str, ...]


BANDS = {
    band.name: band
    for band in (
        Band("B02", 492.4, 66, 1959.7, ("BLUE",)),
        Band("B03", 559.8, 36, 1823.2, ("GREEN",)),
        Band("B04", 664.6, 31, 1512.1, ("RED",)),
        Band("B08", 832.8, 106, 1041.6, ("NIR", "NEAR INFRARED", "B8")),
        Band("B11", 1613.7, 91, 245.6, ("SWIR1", "SWIR 1", "SWIR16")),
        Band("B12", 2202.4, 175, 85.3, ("SWIR2", "SWIR 2", "SWIR22")),
    )
}
FOUR = ("B02", "B03", "B04", "B08")
SIX = (*FOUR, "B11", "B12")

_SHORT = re.compile(r"\bB0?(\d{1,2}A?)\b")


def band_named(text: str | None) -> str | None:
    """The band that a description names: `B04`, `b4 (red)`, `Red`, `sr_b4 nir`; None for what is none of ours."""
    said = (text or "").upper().replace("_", " ").strip()
    for name, band in BANDS.items():
        if said == name or said in band.also:
            return name
    short = _SHORT.search(said)
    if short:
        name = f"B{short[1]:0>2}"
        return name if name in BANDS else None
    return next((name for name, band in BANDS.items() for other in band.also if re.search(rf"\b{other}\b", said)), None)

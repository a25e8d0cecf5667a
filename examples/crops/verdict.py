"""From indices and classes to what is said of an image. Every rule stands here, with where its figures come from."""

from __future__ import annotations

import numpy as np

from examples.crops.classifier import Classes
from examples.crops.indices import BARE, IndexMap, cover, summary
from examples.crops.scene import Scene
from examples.crops.shapes import SoilHealth, Verdict

__all__ = ["verdict"]

COVERED, HALF_COVERED = 0.6, 0.3
"""Erosion falls to about a tenth of bare ground's at 60 % of cover, and to a third at 30 %: the cover factor of the
Universal Soil Loss Equation (Wischmeier, Smith 1978, agriculture handbook 537)."""

DRY_NDMI = 0.0  # below it a closed canopy has less water in its leaves than light scattered between them: Gao 1996
LEAST_LEAVES = 0.02  # of the pixels must have leaves for anything to be said of their water
UNFAMILIAR = 0.5  # below this share of pixels like the training's, the network is guessing
WATER_SHARE = 0.5


def verdict(scene: Scene, found: dict[str, IndexMap], classes: Classes | None) -> Verdict:
    """What is said of the image. Nothing is made up: what the bands do not tell is None, with a note."""
    notes = list(scene.notes)
    ndvi = found.get("ndvi")
    crop, confidence, shares = _crop(scene, classes, notes)
    covered = None if ndvi is None else round(cover(ndvi), 3)
    if ndvi is None:
        notes.append("no near infrared: no NDVI, no verdict on soil; VARI tells how green it looks to the eye")
    water = found.get("ndwi")
    if water is not None and water.valid.any() and float((water.values[water.valid] > 0).mean()) > WATER_SHARE:
        notes.append("most of it looks like open water")
    told = None if ndvi is None else summary(ndvi)
    return Verdict(
        crop_type=crop,
        confidence=confidence,
        soil_health=None if covered is None else _soil(covered),
        ndvi=None if told is None else told.mean,
        irrigation_needed=_thirst(found, notes),
        shares=shares,
        cover=covered,
        familiar=None if classes is None else classes.familiar,
        notes=tuple(notes),
    )


def _crop(scene: Scene, classes: Classes | None, notes: list[str]) -> tuple[str | None, float | None, dict[str, float]]:
    """The commonest class, how sure of it the network was where it chose it, and the share of each."""
    if classes is None:
        why = "the numbers are no reflectance" if not scene.calibrated else "bands are missing"
        notes.append(f"no crop is named: {why}")
        return None, None, {}
    if not classes.valid.any():
        notes.append("no crop is named: too few pixels have data")
        return None, None, {}
    here = classes.shares[:, classes.valid]
    winners = here.argmax(axis=0)
    counts = np.bincount(winners, minlength=len(here))
    best = int(counts.argmax())
    shares = {name: round(float(counts[n] / len(winners)), 3) for n, name in enumerate(classes.card.classes)}
    if classes.familiar < UNFAMILIAR:
        notes.append(
            f"only {classes.familiar:.0%} of the pixels look like anything that the network was trained on: "
            "take its word for little"
        )
    return classes.card.classes[best], round(float(here[best, winners == best].mean()), 3), shares


def _soil(covered: float) -> SoilHealth:
    if covered >= COVERED:
        return "good"
    return "fair" if covered >= HALF_COVERED else "poor"


def _thirst(found: dict[str, IndexMap], notes: list[str]) -> bool | None:
    """Whether the leaves are dry, where there are leaves."""
    ndvi, ndmi = found.get("ndvi"), found.get("ndmi")
    if ndvi is None or ndmi is None:
        notes.append("whether it needs water cannot be told without a short-wave infrared band (B11)")
        return None
    leaves = ndvi.valid & ndmi.valid & (ndvi.values > BARE)
    if leaves.sum() < LEAST_LEAVES * max(int(ndvi.valid.sum()), 1):
        notes.append("whether it needs water cannot be told: there are hardly any leaves")
        return None
    return bool(np.median(ndmi.values[leaves]) < DRY_NDMI)

"""The JSON shapes of the example's own routes, and of what an analysis comes to. Times are RFC 3339 UTC."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from examples.crops.indices import Summary
from ropeway import File, JobError

__all__ = ["Accepted", "Alert", "Analysis", "Ended", "ImageFacts", "Maps", "Running", "Stats", "Verdict"]

SoilHealth = Literal["good", "fair", "poor"]


class ImageFacts(msgspec.Struct, frozen=True):
    """What was analysed. `valid_percent`: of the pixels, those that hold data."""

    width: int
    height: int
    bands: tuple[str, ...]
    valid_percent: float
    pixel_m: float | None = None
    crs: str | None = None


class Maps(msgspec.Struct, frozen=True):
    """PNG images, which belong to the job; None for what could not be drawn."""

    picture: File | None = None
    ndvi: File | None = None
    classes: File | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What is said of an image in the end. What cannot be known from it is None, and `notes` say why.

    Attributes:
        crop_type: the class with the largest share; confidence: how sure the network was of it, 0 to 1, on average.
        shares: of the ground, by class.
        soil_health: how well the ground is covered and kept from drying and washing away. A proxy, as the README tells.
        ndvi: the mean; cover: the share of ground under green leaves, by NDVI.
        irrigation_needed: whether the leaves are short of water, by NDMI.
    """

    crop_type: str | None
    confidence: float | None
    soil_health: SoilHealth | None
    ndvi: float | None
    irrigation_needed: bool | None
    shares: dict[str, float]
    cover: float | None
    familiar: float | None
    notes: tuple[str, ...]


class Analysis(msgspec.Struct, frozen=True):
    """The output of the task. The first seven members are the ones that a caller came for."""

    crop_type: str | None
    confidence: float | None
    soil_health: SoilHealth | None
    ndvi: float | None
    irrigation_needed: bool | None
    timestamp: str
    model_version: str | None
    crop_id: str
    shares: dict[str, float]
    cover: float | None
    familiar: float | None
    indices: dict[str, Summary]
    image: ImageFacts
    maps: Maps
    notes: tuple[str, ...]
    device: str
    seconds: float


class Accepted(msgspec.Struct, frozen=True):
    """`POST /api/crops/{crop_id}/analyze`. `estimated_wait_seconds`: until the result; None while no worker is there.

    `cached`: the job is an earlier one of the same image for the same crop.
    """

    job_id: str
    status: str
    crop_id: str
    poll_url: str
    estimated_wait_seconds: float | None
    cached: bool
    events_url: str


class Running(msgspec.Struct, frozen=True):
    """`GET /api/results/{job_id}`, 202: not there yet."""

    job_id: str
    crop_id: str
    status: str
    progress_percent: int
    current_step: str
    attempt: int
    worker: str | None = None
    queue_position: int | None = None


class Ended(msgspec.Struct, frozen=True, omit_defaults=True):
    """`GET /api/results/{job_id}`, 200: the result, or why there is none."""

    job_id: str
    crop_id: str
    status: str
    progress_percent: int
    attempt: int
    worker: str | None = None
    result: dict[str, Any] | None = None
    error: JobError | None = None
    cancel_reason: str | None = None


class Alert(msgspec.Struct, frozen=True):
    """Something that somebody should look at: what, how much it is, and how much it may be."""

    name: str
    value: float
    threshold: float
    detail: str


class Stats(msgspec.Struct, frozen=True):
    """`GET /api/queue/stats`. `finished` and `failed` count since the store was made."""

    queued: int
    running: int
    active_workers: int
    gpu_workers: int
    finished: int
    failed: int
    cancelled: int
    oldest_waits_seconds: float | None
    average_seconds: float | None
    alerts: tuple[Alert, ...]

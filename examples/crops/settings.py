"""What the example can be told. It travels in the environment, so that every process of it reads the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import msgspec

__all__ = ["GPU_CALLS", "GPU_QUEUE", "GPU_TASK", "QUEUE", "TASK", "CropsSettings", "settings"]

TASK, GPU_TASK = "analyze", "analyze_gpu"
QUEUE, GPU_QUEUE = "satellite_analysis", "satellite_analysis_gpu"
GPU_CALLS = 2  # at once in its worker: images of one are read and drawn while the GPU looks at another's

_PREFIX = "CROPS_"


class CropsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The example's own settings.

    Attributes:
        min_bytes, max_bytes: how large an uploaded image may be.
        results: the SQL database that results go to as well, as SQLAlchemy names it.
        device: what the model runs on: `gpu`, `cpu`, or whatever its worker has.
        batch: images that share a call of the model at most, on a GPU. cpu_batch: the same without one, where larger
            calls gain nothing and keep the first image waiting for the last (measured: README).
        max_queued: images that may wait, on each queue; the next is answered 503.
    """

    min_bytes: int = 5_000_000
    max_bytes: int = 50_000_000
    results: str = "sqlite:///crops-results.db"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    batch: int = 8
    cpu_batch: int = 2
    max_queued: int = 1_000

    def environment(self) -> dict[str, str]:
        """These settings as variables; `settings` reads them back."""
        return {_PREFIX + name.upper(): str(value) for name, value in msgspec.structs.asdict(self).items()}


def settings(environ: Mapping[str, str] = os.environ) -> CropsSettings:
    """The settings of this process. Raises msgspec.ValidationError for one that is unknown or out of type."""
    found = {name.removeprefix(_PREFIX).lower(): text for name, text in environ.items() if name.startswith(_PREFIX)}
    return msgspec.convert(found, CropsSettings, strict=False)

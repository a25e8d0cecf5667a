"""What the example can be told. It travels in the environment, so that every process of it reads the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import msgspec

__all__ = ["QUEUE", "THREADS_PER_REQUEST", "PipelineSettings", "settings"]

QUEUE = "pipeline"
THREADS_PER_REQUEST = 2  # its two steps run side by side, each on a thread of its own

_PREFIX = "PIPELINE_"


class PipelineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pipeline's own settings.

    Attributes:
        step1_s, step2_s: how long the two steps block, in seconds.
        mode: `thread` runs the steps as blocking code on threads, `async` as coroutines on the event loop.
        max_queued: requests that may wait, in all; the next is answered 503.
        retention_s: seconds that a request is kept after its end; the series is kept for a part of that.
    """

    step1_s: float = 2.5
    step2_s: float = 1.0
    mode: Literal["thread", "async"] = "thread"
    max_queued: int = 400_000
    retention_s: float = 7 * 86_400.0

    def environment(self) -> dict[str, str]:
        """These settings as variables; `settings` reads them back."""
        return {_PREFIX + name.upper(): str(value) for name, value in msgspec.structs.asdict(self).items()}


def settings(environ: Mapping[str, str] = os.environ) -> PipelineSettings:
    """The settings of this process. Raises msgspec.ValidationError for one that is unknown or out of type."""
    found = {name.removeprefix(_PREFIX).lower(): text for name, text in environ.items() if name.startswith(_PREFIX)}
    return msgspec.convert(found, PipelineSettings, strict=False)

"""Models as tasks: `upstream` asks any OpenAI-compatible API, `local` runs small models in the worker itself."""

from __future__ import annotations

from ropeway.models.family import Family, upstream
from ropeway.models.inhouse import LocalOptions, local
from ropeway.models.keys import ModelUnavailable
from ropeway.models.options import UpstreamOptions
from ropeway.models.within import ChatModel, EmbeddingModel

__all__ = [
    "ChatModel",
    "EmbeddingModel",
    "Family",
    "LocalOptions",
    "ModelUnavailable",
    "UpstreamOptions",
    "local",
    "upstream",
]

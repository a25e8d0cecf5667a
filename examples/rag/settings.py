"""What the example can be told. It travels in the environment, so that every process of it reads the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ropeway.models.store import CHAT_MODEL

__all__ = ["ANSWER", "FIND", "INDEX", "INGEST", "SHIPPED", "RagSettings", "settings"]

ANSWER, FIND, INDEX, INGEST = "answer", "find", "index", "ingest"  # the tasks, each on a queue of its name
SHIPPED = Path(__file__).with_name("documents")

_PREFIX = "RAG_"


class RagSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The example's own settings.

    Attributes:
        documents: the folder that is read; what is asked to be ingested lies within it. Every worker must see it.
        store: where passages and vectors are: `sqlite:PATH`, one file for all processes of a machine, or
            `postgresql://…`, for many machines.
        model: the chat model's id; with no upstream, the one that `ropeway.models.fetch` brings.
        upstream: the base URL of an OpenAI-compatible API that serves it; '' runs it in the worker.
        key: where that API's key is: `env:NAME` or `file:PATH`.
        found: passages that are shown as sources. told: of these, how many the model is given; 0: one for the local
            model, which more would only confuse, and all for an upstream.
        min_score: a cosine below which a passage has nothing to do with the question.
        batch: questions, or passages, that one call of the embedding model serves at most.
        slots: answers that are written at once in one worker by the local model.
        threads: that the local models compute with; 0: one less than there are cores.
        max_queued: questions that may wait; the next is answered 503.
    """

    documents: str = str(SHIPPED)
    store: str = "sqlite:rag-passages.db"
    model: str = CHAT_MODEL
    upstream: str = ""
    key: str = ""
    found: int = 3
    told: int = 0
    min_score: float = 0.25
    batch: int = 32
    slots: int = 2
    threads: int = 0
    max_queued: int = 1_000

    @property
    def given(self) -> int:
        """How many passages the model is given."""
        return min(self.told or (self.found if self.upstream else 1), self.found)

    def environment(self) -> dict[str, str]:
        """These settings as variables; `settings` reads them back."""
        return {_PREFIX + name.upper(): str(value) for name, value in msgspec.structs.asdict(self).items()}


def settings(environ: Mapping[str, str] = os.environ) -> RagSettings:
    """The settings of this process. Raises msgspec.ValidationError for one that is unknown or out of type."""
    found = {name.removeprefix(_PREFIX).lower(): text for name, text in environ.items() if name.startswith(_PREFIX)}
    return msgspec.convert(found, RagSettings, strict=False)

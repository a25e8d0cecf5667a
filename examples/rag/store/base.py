"""The store of passages as the application sees it: a port of seven, which SQLite and PostgreSQL implement."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from examples.rag.documents import Passage

__all__ = ["DIMENSIONS", "MODEL", "Embedded", "Hit", "Incomplete", "PassageStore", "StoreFailed", "floats", "packed"]

DIMENSIONS = 384
MODEL = "minilm-l6"  # whose vectors these are: those of another are not comparable


class StoreFailed(RuntimeError):
    """The store cannot be used: the message says why and what to do."""


class Incomplete(RuntimeError):
    """Passages of a document are not there any more: it was ingested by another job meanwhile. Ingest it again."""


class Embedded(NamedTuple):
    """A passage with its vector, and those of its sentences."""

    tenant: str
    passage: Passage
    vector: Sequence[float]
    sentence_vectors: Sequence[Sequence[float]]


class Hit(msgspec.Struct, frozen=True):
    """A passage that was found. `score` is the cosine; `sentence_vectors` as `packed` has them, one after the other."""

    document: str
    title: str
    sentences: tuple[str, ...]
    score: float
    sentence_vectors: bytes


class PassageStore(Protocol):
    """Passages, their vectors, and which documents are whole. Calls block; several threads may make them.

    What a tenant has put there, no other finds, counts or removes.
    """

    def put(self, passages: Sequence[Embedded]) -> None:
        """Keep passages. One that is there already stays as it is."""
        ...

    def known(self, tenant: str, document: str) -> set[str]:
        """The ids of a document's passages that are there, of whichever version."""
        ...

    def finish(self, tenant: str, document: str, digest: str, passages: Sequence[str]) -> None:
        """The document is whole with these passages, and its others go. Raises Incomplete when one is missing."""
        ...

    def documents(self, tenant: str) -> Mapping[str, str]:
        """The documents that are whole, each with its digest."""
        ...

    def remove(self, tenant: str, documents: Collection[str]) -> None:
        """Forget documents with all their passages."""
        ...

    def search(self, tenant: str, vector: Sequence[float], limit: int) -> list[Hit]:
        """The tenant's nearest passages, the nearest first."""
        ...

    def close(self) -> None:
        """Let go of the store. Harmless when repeated."""
        ...


def packed(vectors: Sequence[Sequence[float]]) -> bytes:
    """Vectors one after the other, as little-endian floats of 4 bytes on every machine that this runs on."""
    return b"".join(array("f", vector).tobytes() for vector in vectors)


def floats(content: bytes) -> list[array[float]]:
    """The vectors that were packed."""
    size = DIMENSIONS * 4
    return [array("f", content[start : start + size]) for start in range(0, len(content), size)]

"""A folder of texts as documents, and a document as passages: what is embedded, found, and shown as a source."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec

__all__ = ["Document", "Folder", "FolderUnknown", "Passage", "Refused", "folder_within", "passages_of", "read_folder"]

KINDS = frozenset({".md", ".txt"})
LARGEST_BYTES = 2 * 1024**2
PASSAGE_WORDS = 90  # about 130 tokens; the model reads up to 256, and a longer passage is found less surely

_SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=\S)")
_HEADING = re.compile(r"#{1,6}\s+(.*)")


class Passage(msgspec.Struct, frozen=True):
    """A few sentences of a document that belong together.

    `id` follows from all the rest, so a passage that did not change is known again. `n`: its place in the document.
    """

    id: str
    document: str
    title: str
    n: int
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


class Document(NamedTuple):
    """A text as it was read. `name` is its path below the root of all documents, `digest` that of its bytes."""

    name: str
    digest: str
    text: str


class Refused(msgspec.Struct, frozen=True):
    """A file that is not read, and why."""

    document: str
    reason: str


class Folder(NamedTuple):
    """What was in a folder, by name."""

    documents: tuple[Document, ...]
    refused: tuple[Refused, ...]


class FolderUnknown(ValueError):
    """There is no such folder of documents."""


def folder_within(root: Path, name: str) -> str:
    """The folder's path below `root`, `.` for that itself. Raises FolderUnknown when it is none, or lies elsewhere."""
    root = root.resolve()
    try:
        path = (root / name).resolve()
        is_folder = path.is_relative_to(root) and path.is_dir()
    except (OSError, ValueError):  # too long, a loop of links, or a zero byte
        is_folder = False
    if not is_folder:
        raise FolderUnknown(f"there is no folder {name[:100]!r} below the documents")
    return path.relative_to(root).as_posix()


def read_folder(root: Path, name: str) -> Folder:
    """All texts in a folder and those below it; hidden ones and links that lead out are left alone. Blocks.

    Raises FolderUnknown.
    """
    root = root.resolve()
    documents: list[Document] = []
    refused: list[Refused] = []
    for path in sorted((root / folder_within(root, name)).rglob("*")):
        named = path.relative_to(root).as_posix()
        if path.suffix.lower() not in KINDS or any(part.startswith(".") for part in PurePosixPath(named).parts):
            continue
        if not path.resolve().is_relative_to(root) or not path.is_file():
            continue
        read = _read(path, named)
        if isinstance(read, Refused):
            refused.append(read)
        else:
            documents.append(read)
    return Folder(tuple(documents), tuple(refused))


def passages_of(document: Document) -> list[Passage]:
    """The document's passages, in order: a paragraph each, a long one in several."""
    title = PurePosixPath(document.name).stem
    passages: list[Passage] = []
    for paragraph in re.split(r"\n\s*\n", document.text):
        heading = _HEADING.fullmatch(paragraph.strip())
        if heading:
            title = heading[1].strip()
            continue
        for sentences in _packed(_SENTENCE.split(" ".join(paragraph.split()))):
            passages.append(_passage(document.name, title, len(passages), sentences))
    return passages


def _read(path: Path, named: str) -> Document | Refused:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            return Refused(named, f"it is larger than {LARGEST_BYTES} bytes")
        content = path.read_bytes()
        text = content.decode()
        if "\0" in text:
            return Refused(named, "it is no text")
        return Document(named, hashlib.sha256(content).hexdigest(), text)
    except UnicodeDecodeError:
        return Refused(named, "it is no text in UTF-8")
    except OSError as error:
        return Refused(named, f"it cannot be read: {error.strerror}")


def _packed(sentences: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Whole sentences, together as long as they are no longer than a passage may be."""
    packed: list[str] = []
    words = 0
    for sentence in filter(None, sentences):
        count = len(sentence.split())
        if packed and words + count > PASSAGE_WORDS:
            yield tuple(packed)
            packed, words = [], 0
        packed.append(sentence)
        words += count
    if packed:
        yield tuple(packed)


def _passage(document: str, title: str, n: int, sentences: tuple[str, ...]) -> Passage:
    seed = msgspec.json.encode([document, title, n, sentences])
    return Passage(hashlib.blake2b(seed, digest_size=16).hexdigest(), document, title, n, sentences)

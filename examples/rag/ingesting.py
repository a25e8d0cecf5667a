"""Ingestion of a folder: read, split, embed, store; and what is there already is left alone.

Each attempt compares the folder with the store and goes on with what is missing, so a repeat costs little more than
reading: a document whose bytes are known is skipped, and of one that changed only the passages are embedded that did.
Embedding is done by children, a wave of passages at a time; while a wave is out this job holds no place in a worker.
A document counts as whole when all its passages are stored. While it is replaced, old and new passages are both found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from examples.rag.documents import Document, Folder, FolderUnknown, Passage, Refused, passages_of, read_folder
from examples.rag.settings import RagSettings
from examples.rag.store import PassageStore
from ropeway import Context, Fail, JobHandle, Task, call

__all__ = ["Ingested", "Ingesting"]

WAVE_PASSAGES = 128  # four full batches; progress is told after each wave
READ, SPLIT, EMBED, STORE = "read", "split", "embed", "store"


class Ingested(msgspec.Struct, frozen=True):
    """What became of a folder. `passages`: of the documents that were new or changed."""

    folder: str
    documents: int
    unchanged: int
    changed: int
    removed: int
    passages: int
    refused: tuple[Refused, ...] = ()


class _Split(NamedTuple):
    document: Document
    passages: list[Passage]


class Ingesting:
    """One attempt of an ingest job."""

    def __init__(self, own: RagSettings, index: Task[..., object, str], store: PassageStore, ctx: Context) -> None:
        self._own = own
        self._index = index
        self._store = store
        self._ctx = ctx

    async def run(self, folder: str) -> Ingested:
        """Bring the store up to date with the folder. Raises Fail for one that is none."""
        found = await self._read(folder)
        kept = await asyncio.to_thread(self._store.documents, self._ctx.tenant)
        changed = await asyncio.to_thread(_split, [one for one in found.documents if kept.get(one.name) != one.digest])
        gone = _gone(folder, found, kept)
        plan = await self._ctx.step("plan", _plan, folder, found, len(changed), len(gone), _count(changed))
        for wave in _waves(changed):
            self._tell(plan, changed, EMBED)
            await self._embed(wave)
            await asyncio.to_thread(self._finish, wave)
            changed = changed[len(wave) :]
        await asyncio.to_thread(self._store.remove, self._ctx.tenant, gone)
        self._ctx.progress(1.0, STORE)
        return plan

    async def _read(self, folder: str) -> Folder:
        self._ctx.progress(0.0, READ)
        try:
            return await asyncio.to_thread(read_folder, Path(self._own.documents), folder)
        except FolderUnknown as error:
            raise Fail(str(error), code="folder_unknown") from error

    async def _embed(self, wave: Sequence[_Split]) -> None:
        """Have the wave's passages embedded and stored that are not there yet."""
        fresh = await asyncio.to_thread(self._fresh, wave)
        jobs: list[JobHandle[str]] = []
        async for job in self._ctx.jobs.submit_many([call(self._index, passage=passage) for passage in fresh]):
            jobs.append(job)
        await self._ctx.gather(*jobs)

    def _fresh(self, wave: Sequence[_Split]) -> list[Passage]:
        fresh = []
        for one in wave:
            known = self._store.known(self._ctx.tenant, one.document.name)
            fresh += [passage for passage in one.passages if passage.id not in known]
        return fresh

    def _finish(self, wave: Sequence[_Split]) -> None:
        for one in wave:
            ids = [passage.id for passage in one.passages]
            self._store.finish(self._ctx.tenant, one.document.name, one.document.digest, ids)

    def _tell(self, plan: Ingested, left: Sequence[_Split], step: str) -> None:
        """How far it is, by passages: also after a repeat, since the plan is the first attempt's."""
        done = max(plan.passages - _count(left), 0)
        message = f"{done} of {plan.passages} passages"
        self._ctx.progress(0.1 + 0.9 * done / max(plan.passages, 1), step, message)


def _plan(folder: str, found: Folder, changed: int, gone: int, passages: int) -> Ingested:
    total = len(found.documents)
    return Ingested(folder, total, total - changed, changed, gone, passages, found.refused[:100])


def _split(documents: Iterable[Document]) -> list[_Split]:
    return [_Split(document, passages_of(document)) for document in documents]


def _count(documents: Sequence[_Split]) -> int:
    return sum(len(one.passages) for one in documents)


def _waves(documents: Sequence[_Split]) -> Iterator[list[_Split]]:
    """Documents in groups of so many passages, or one document that has more."""
    wave: list[_Split] = []
    for one in documents:
        if wave and _count(wave) + len(one.passages) > WAVE_PASSAGES:
            yield wave
            wave = []
        wave.append(one)
    if wave:
        yield wave


def _gone(folder: str, found: Folder, kept: Mapping[str, str]) -> list[str]:
    """Documents of this folder that are in the store, and not in the folder any more."""
    there = {one.name for one in found.documents} | {one.document for one in found.refused}
    inside = "" if folder.strip("/") in ("", ".") else f"{folder.strip('/')}/"
    return [name for name in kept if name.startswith(inside) and name not in there]

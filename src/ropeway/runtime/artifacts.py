"""What a task makes beside its output: files that belong to its job, and an event for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable
from pathlib import Path
from typing import Any

from ropeway.blobs import About, Files
from ropeway.blobs.handle import File, Saved
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.file import ARTIFACT_PURPOSE, FilesNotKept
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.feed import Feed

__all__ = ["Artifacts", "Content", "Saving"]

Content = Path | bytes | Iterable[bytes] | AsyncIterable[bytes]

READ_BYTES = 1 << 20


class Saving(Saved):
    """A file that is being kept. `await` it in async code; in a blocking task it is kept when you have this."""

    __slots__ = ("_saved", "id")

    def __init__(self, id_: str, saved: asyncio.Future[File] | File) -> None:
        self.id = id_
        self._saved = saved

    @property
    def file(self) -> File:
        """It, to stand in the output. Its bytes may still be on their way: the job does not end before they are."""
        return self._saved if isinstance(self._saved, File) else File(self.id)

    def __await__(self) -> Generator[Any, None, File]:
        if isinstance(self._saved, File):
            return self._saved
        return (yield from asyncio.shield(self._saved).__await__())


class Artifacts:
    """Keeps them. One for a worker; `files` is None where it has no store. Made in its loop."""

    def __init__(self, files: Files | None) -> None:
        self._files = files
        self._loop = asyncio.get_running_loop()
        self._saving: dict[Attempt, set[asyncio.Future[File]]] = {}

    def save(self, attempt: Attempt, feed: Feed, name: str, content: Content, content_type: str | None) -> Saving:
        """Begin to keep a file; in another thread than the loop's, keep it.

        Raises FilesNotKept, InvalidRequest for a content that is none; in a thread also what keeping it comes to.
        """
        if self._files is None:
            raise FilesNotKept("this worker has no store of files: set `blobs`")
        chunks, id_ = _chunks(content), self._files.new_id()
        keeping = self._keep(attempt, feed, id_, chunks, About(name, content_type, ARTIFACT_PURPOSE, job=_job(attempt)))
        if not self._is_here():
            return Saving(id_, asyncio.run_coroutine_threadsafe(keeping, self._loop).result())
        task = self._loop.create_task(keeping)
        self._saving.setdefault(attempt, set()).add(task)
        return Saving(id_, task)

    def _is_here(self) -> bool:
        """Whether the caller runs in the worker's loop, which must not wait."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def saves(self, attempt: Attempt) -> bool:
        """Whether the attempt began to keep anything in the loop."""
        return attempt in self._saving

    async def settled(self, attempt: Attempt) -> None:
        """Until everything that the attempt began to keep is kept. Raises what one of them came to."""
        await asyncio.gather(*self._saving.get(attempt, ()))

    def forget(self, attempt: Attempt) -> None:
        """The attempt has ended: what is still on its way is of no use."""
        for task in self._saving.pop(attempt, ()):
            task.cancel()
            task.add_done_callback(_heard)

    async def _keep(self, attempt: Attempt, feed: Feed, id_: str, chunks: AsyncIterable[bytes], about: About) -> File:
        assert self._files is not None
        file = await self._files.create(attempt.assignment.tenant, chunks, about, id=id_)
        feed.artifact(
            {
                "name": file.filename,
                "file": file.id,
                "url": f"/v1/files/{file.id}/content",
                "content_type": file.content_type,
                "size": file.size,
                "sha256": file.sha256,
            }
        )
        return File(file.id, record=file)


def _job(attempt: Attempt) -> str:
    return attempt.assignment.lease.job_id


def _heard(task: asyncio.Future[File]) -> None:
    if not task.cancelled():
        task.exception()  # nobody waits for it any more


def _chunks(content: Content) -> AsyncIterable[bytes]:
    if isinstance(content, bytes | bytearray | memoryview):
        return _one(bytes(content))
    if isinstance(content, Path):
        return _of_path(content)
    if isinstance(content, AsyncIterable):
        return content
    if isinstance(content, Iterable) and not isinstance(content, str):
        return _of_iterable(content)
    raise InvalidRequest("an artifact is a Path, bytes, or an iterator of bytes: text must be encoded first")


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _of_path(path: Path) -> AsyncIterator[bytes]:
    opened = await asyncio.to_thread(path.open, "rb")
    try:
        while block := await asyncio.to_thread(opened.read, READ_BYTES):
            yield block
    finally:
        opened.close()


async def _of_iterable(content: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A blocking iterator, each step on a thread."""
    steps = iter(content)
    while (block := await asyncio.to_thread(next, steps, None)) is not None:
        yield block

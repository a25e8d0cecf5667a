"""Files of an engine in this process."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from ropeway.blobs import About, Files
from ropeway.blobs.upload import Upload
from ropeway.client.files import FileBody, FileList, file_body
from ropeway.domain.file import OUTPUT_PURPOSE, FilesNotKept, referred_output

__all__ = ["LocalFiles"]

OUTPUT_LIMIT_BYTES = 1 << 30  # of an output that is taken into memory as a whole


class LocalFiles:
    """One tenant's files. `files`: None when the engine has no store; everything raises FilesNotKept then."""

    def __init__(self, files: Files | None, tenant: str) -> None:
        self._files = files
        self._tenant = tenant

    async def upload(self, chunks: AsyncIterable[bytes], about: About, key: str | None) -> FileBody:
        return file_body(await Upload(self.kept, self._tenant, key).create(chunks, about))

    async def download(self, id_: str) -> AsyncIterator[bytes]:
        async for block in self.kept.read(await self.kept.get(self._tenant, id_)):
            yield block

    async def get(self, id_: str) -> FileBody:
        return file_body(await self.kept.get(self._tenant, id_))

    async def list(self, purpose: str | None, limit: int, after: str | None) -> FileList:
        page = await self.kept.list(self._tenant, purpose=purpose, limit=limit, after=after)
        data = [file_body(file) for file in page.files]
        return FileList(data, page.has_more, data[0].id if data else None, data[-1].id if data else None)

    async def delete(self, id_: str) -> None:
        await self.kept.delete(self._tenant, id_)

    async def output(self, output: str) -> str:
        """An output as the task made it: what was too large for the job's row is read from its file."""
        named = referred_output(output)
        if named is None or self._files is None:
            return output
        file = await self._files.get(self._tenant, named)
        if file.purpose != OUTPUT_PURPOSE:
            return output
        return (await self._files.read_all(file, OUTPUT_LIMIT_BYTES)).decode()

    @property
    def kept(self) -> Files:
        """The files. Raises FilesNotKept."""
        if self._files is None:
            raise FilesNotKept
        return self._files

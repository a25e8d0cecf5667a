"""One upload: bytes, then what they are. Under a key of its sender's a repeat gives the file that the first one made.

| kind | tenant | id | holds |
|---|---|---|---|
| `filekey` | its own | the key's SHA-256 | Claim: the file's id, and a mark of what was sent; for a day |

The claim is written before the file is entered, and names the id that the file will have. So whoever dies between the
two leaves a claim that the repeat fulfils, under the same id; of two at the same time one makes the file, or both make
it of the same bytes, and the sweep lets the spare blob go. A repeat after the file was deleted makes it anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable

import msgspec

from ropeway.blobs.base import Blob
from ropeway.blobs.files import NO_LIMITS, About, FileLimits, Files
from ropeway.domain.errors import IdempotencyKeyReused
from ropeway.domain.file import FileNotFound, FileRecord, FilesUnavailable, clean_filename
from ropeway.domain.job import CLAIM_MS
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey

__all__ = ["FILE_KEY", "Upload"]

FILE_KEY = "filekey"
_KEPT_NOWHERE = ""  # the key of a blob whose bytes were only counted


class _Claim(msgspec.Struct, frozen=True):
    file: str
    mark: str


class Upload:
    """One upload of a tenant: `create`, or `write` and then `enter` or `forget`. `replayed` tells of a repeat."""

    def __init__(self, files: Files, tenant: str, key: str | None = None, limits: FileLimits = NO_LIMITS) -> None:
        self.replayed = False
        self._files = files
        self._tenant = tenant
        self._limits = limits
        self._place = None if key is None else RecordKey(FILE_KEY, tenant, hashlib.sha256(key.encode()).hexdigest())

    async def create(self, chunks: AsyncIterable[bytes], about: About) -> FileRecord:
        """Keep a file, or find the one that is kept under the key already. Raises as `write` and `enter` do."""
        return await self.enter(await self.write(chunks), about)

    async def write(self, chunks: AsyncIterable[bytes]) -> Blob:
        """Keep the bytes; of a repeat they are only read, to see whether they are the same. Raises as `Files.write`."""
        if self._place is None or await self._known(self._place) is None:
            return await self._files.write(self._tenant, chunks, self._limits)
        digest, size = hashlib.sha256(), 0
        async for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
        return Blob(_KEPT_NOWHERE, digest.hexdigest(), size)

    async def enter(self, blob: Blob, about: About) -> FileRecord:
        """Make of the bytes a file, or find it. Raises as `Files.enter`, and IdempotencyKeyReused, FilesUnavailable."""
        await self._files.check_digest(blob, about)
        if self._place is None:
            return await self._files.enter(self._tenant, blob, about, limits=self._limits)
        claim = await self._claimed(self._place, _Claim(self._files.new_id(), _mark(blob, about)))
        if claim is None:
            await self.forget(blob)
            raise IdempotencyKeyReused
        file = await self._file(claim)
        if file is None and blob.key == _KEPT_NOWHERE:
            raise FilesUnavailable("the file that was made under this key was deleted meanwhile: send it again")
        if file is None:
            return await self._files.enter(self._tenant, blob, about, id=claim.file, limits=self._limits)
        await self.forget(blob)
        self.replayed = True
        return file

    async def forget(self, blob: Blob) -> None:
        """The bytes will be no file."""
        if blob.key != _KEPT_NOWHERE:
            await self._files.store.delete(blob.key)

    async def _claimed(self, place: RecordKey, wanted: _Claim) -> _Claim | None:
        """Whose the key is: this upload's, or that of an earlier one of the same; None when it is another's."""
        body = msgspec.json.encode(wanted).decode()
        (answer,) = await self._files.ledger.put([Put(place, body, expected=0, ttl_ms=CLAIM_MS)])
        if not isinstance(answer, RecordConflict):
            return wanted
        if answer.current is None:  # it expired this moment
            raise FilesUnavailable("the key is being claimed: send it again")
        known = _decoded(answer.current)
        return known if known.mark == wanted.mark else None

    async def _known(self, place: RecordKey) -> FileRecord | None:
        """The file that was made under the key and is still there."""
        (record,) = await self._files.ledger.fetch([place])
        return None if record is None else await self._file(_decoded(record))

    async def _file(self, claim: _Claim) -> FileRecord | None:
        try:
            return await self._files.get(self._tenant, claim.file)
        except FileNotFound:
            return None


def _mark(blob: Blob, about: About) -> str:
    """What two uploads have in common that are the same."""
    told = (blob.sha256, clean_filename(about.filename), about.content_type, about.purpose, about.ttl_s)
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()


def _decoded(record: Record) -> _Claim:
    return msgspec.json.decode(record.body, type=_Claim)

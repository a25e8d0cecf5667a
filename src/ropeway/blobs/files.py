"""Files over an engine's records and a store of blobs: what gateways, workers and clients in this process use.

    files = Files(engine, store)
    file = await files.create(tenant, chunks, About("batch.jsonl", purpose="batch"))
    async for block in files.read(file): ...
    await files.delete(tenant, file.id)

How a file is kept:

| kind | tenant | id | holds |
|---|---|---|---|
| `file` | its own | the file's, newest first | FileRecord of an upload: listed, and counted against the quota |
| `jobfile` | its own | the same | FileRecord of what belongs to a job: an artifact, a large output |
| `blob` | '' | the blob's key | Reference: which file a blob is of, so that the sweep finds it in both directions |
| `filehold` | its own | `<file>:<job>` | a job that was given a file that will go: not while the job lives |
| `fileuse` | its own | `total` | bytes and number of uploads; the sweep mends it |

Written blob, then reference, then record; deleted record, then blob, then reference. Whoever dies between two steps
leaves what the sweep recognises. A file that has expired is as one that is not there.
"""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Collection, Sequence

import msgspec

from ropeway.blobs.base import Blob, BlobStore
from ropeway.blobs.ledger import Ledger, owns
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.errors import PayloadTooLarge
from ropeway.domain.file import (
    DEFAULT_CONTENT_TYPE,
    DEFAULT_PURPOSE,
    DigestMismatch,
    FileNotFound,
    FilePage,
    FileRecord,
    FilesNotKept,
    FilesUnavailable,
    QuotaExhausted,
    clean_content_type,
    clean_filename,
    file_id,
    is_file_id,
)
from ropeway.domain.ids import SEED_BYTES, RandomBytes, system_random
from ropeway.domain.record import Put, Record, RecordKey

__all__ = ["BLOB", "FILE", "HOLD", "JOB_FILE", "USE", "About", "FileLimits", "Files", "Reference", "Usage", "record_id"]

FILE, JOB_FILE, BLOB, HOLD, USE = "file", "jobfile", "blob", "filehold", "fileuse"
USE_ID = "total"

LATEST_MS = (1 << 48) - 1
HOLD_TTL_MS = 400 * 86_400_000  # beyond any job: what the sweep missed goes by itself
CAS_TRIES = 64
SCAN_PAGE = 200

_types = mimetypes.MimeTypes(filenames=())  # the library's own table: the same on every machine


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which file a blob is of."""

    tenant: str
    file: str
    job: str | None = None


class About(msgspec.Struct, frozen=True):
    """What who makes a file says of it.

    `ttl_s`: seconds until it expires; None: never. `job`: the job that it belongs to, and is deleted with. `sha256`:
    what the bytes must come to, as 64 hex digits.
    """

    filename: str = ""
    content_type: str | None = None
    purpose: str = DEFAULT_PURPOSE
    ttl_s: float | None = None
    job: str | None = None
    sha256: str | None = None


class FileLimits(msgspec.Struct, frozen=True):
    """How much a file may have, and all of the tenant's uploads together; None: as much as there is room for."""

    file_bytes: int | None = None
    quota_bytes: int | None = None


NOTHING_SAID = About()
NO_LIMITS = FileLimits()


class Usage(msgspec.Struct, frozen=True):
    """What a tenant's uploads take."""

    size: int = 0
    files: int = 0


class Files:
    """The files of all tenants. Another tenant's file is as one that does not exist."""

    def __init__(
        self, ledger: Ledger, store: BlobStore, *, clock: Clock | None = None, random: RandomBytes = system_random
    ) -> None:
        self.store = store
        self.ledger = ledger
        self.clock = clock or SystemClock()
        self._random = random
        self._owns: bool | None = None

    def new_id(self) -> str:
        return file_id(self.clock.now_ms(), self._random(SEED_BYTES))

    async def create(
        self,
        tenant: str,
        chunks: AsyncIterable[bytes],
        about: About = NOTHING_SAID,
        *,
        id: str | None = None,  # noqa: A002 - the field's own name
        limits: FileLimits = NO_LIMITS,
    ) -> FileRecord:
        """Keep a file: durable on return, or nothing of it. Raises as `write` and `enter` do."""
        return await self.enter(tenant, await self.write(tenant, chunks, limits), about, id=id, limits=limits)

    async def write(self, tenant: str, chunks: AsyncIterable[bytes], limits: FileLimits = NO_LIMITS) -> Blob:
        """The first half of `create`, for who knows only from the bytes what they are: enter it next, or forget it.

        Raises PayloadTooLarge, QuotaExhausted, StorageFull, FilesUnavailable, FilesNotKept, and what `chunks` does.
        """
        await self._check_owner()
        room = None if limits.quota_bytes is None else limits.quota_bytes - (await self.usage(tenant)).size
        return await self.store.write(_bounded(chunks, limits.file_bytes, room))

    async def enter(
        self,
        tenant: str,
        blob: Blob,
        about: About = NOTHING_SAID,
        *,
        id: str | None = None,  # noqa: A002 - the field's own name
        limits: FileLimits = NO_LIMITS,
    ) -> FileRecord:
        """Make a written blob a file. Raises DigestMismatch and QuotaExhausted; the blob is gone then."""
        await self.check_digest(blob, about)
        now_ms = self.clock.now_ms()
        name = clean_filename(about.filename)
        file = FileRecord(
            id=id or self.new_id(),
            filename=name,
            size=blob.size,
            sha256=blob.sha256,
            content_type=clean_content_type(about.content_type) or guessed_type(name),
            purpose=about.purpose,
            blob=blob.key,
            created_at_ms=now_ms,
            expires_at_ms=None if about.ttl_s is None else now_ms + round(about.ttl_s * 1000),
            job=about.job,
        )
        await self._enter(tenant, file, limits.quota_bytes)
        return file

    async def check_digest(self, blob: Blob, about: About) -> None:
        """Raises DigestMismatch for other bytes than were announced; the blob is gone then."""
        if about.sha256 is not None and blob.sha256 != about.sha256.lower():
            if blob.key:
                await self.store.delete(blob.key)
            raise DigestMismatch(f"the bytes that came have the SHA-256 {blob.sha256}, not {about.sha256[:64]}")

    async def get(self, tenant: str, id_: str) -> FileRecord:
        """The file. Raises FileNotFound, the same for what is not there and what is another's."""
        return (await self.get_all(tenant, [id_]))[0]

    async def get_all(self, tenant: str, ids: Sequence[str], *, held: bool = False) -> list[FileRecord]:
        """The files, in this order; with `held` also those that have expired, and are kept for who was given them.

        Raises FileNotFound for the first that is not there.
        """
        known = [id_ for id_ in ids if is_file_id(id_)]
        keys = [RecordKey(kind, tenant, record_id(id_)) for id_ in known for kind in (FILE, JOB_FILE)]
        found = {file.id: file for file in _files_of(await self.ledger.fetch(keys) if keys else [])}
        now_ms = self.clock.now_ms()
        for id_ in ids:
            if id_ not in found or (found[id_].expired(now_ms) and not held):
                raise FileNotFound(f"no file {id_[:100]}")
        return [found[id_] for id_ in ids]

    def read(self, file: FileRecord, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Its bytes from `start` up to, not with, `end`. Raises BlobMissing, FilesUnavailable."""
        return self.store.read(file.blob, start, end)

    async def read_all(self, file: FileRecord, limit_bytes: int) -> bytes:
        """All of its bytes at once. Raises PayloadTooLarge above the limit, and as `read`."""
        if file.size > limit_bytes:
            raise PayloadTooLarge(f"{file.id} has {file.size:,} bytes, more than the {limit_bytes:,} taken at once")
        return b"".join([block async for block in self.read(file)])

    async def list(
        self, tenant: str, *, purpose: str | None = None, after: str | None = None, limit: int = 100
    ) -> FilePage:
        """A tenant's uploads, newest first, strictly after the file `after`."""
        found: list[FileRecord] = []
        now_ms = self.clock.now_ms()
        place = "" if after is None else record_id(after)
        while True:
            page = await self.ledger.scan(FILE, tenant, place, SCAN_PAGE)
            for file in _files_of(page):
                if (purpose is None or file.purpose == purpose) and not file.expired(now_ms):
                    found.append(file)
                if len(found) > limit:
                    return FilePage(tuple(found[:limit]), has_more=True)
            if len(page) < SCAN_PAGE:
                return FilePage(tuple(found), has_more=False)
            place = page[-1].key.id

    async def delete(self, tenant: str, id_: str) -> FileRecord:
        """Delete a file, also one that a job still needs; that job then fails. Raises FileNotFound."""
        file = await self.get(tenant, id_)
        await self.remove(tenant, file)
        return file

    async def remove(self, tenant: str, file: FileRecord) -> None:
        """Delete it, in the order that leaves nothing unfound."""
        kind = FILE if file.job is None else JOB_FILE
        (was_there,) = await self.ledger.drop([RecordKey(kind, tenant, record_id(file.id))])
        if was_there and file.job is None:
            await self.count(tenant, -file.size, -1)
        await self.forget(file.blob)

    async def forget(self, blob: str) -> None:
        """Let a blob go, then what is known of it."""
        await self.store.delete(blob)
        await self.ledger.drop([RecordKey(BLOB, "", blob)])

    async def hold(self, tenant: str, job: str, ids: Collection[str]) -> None:
        """Keep these files from being swept while the job lives. Before its submit, so that there is no gap.

        Raises FileNotFound. One that would never be swept needs no hold.
        """
        files = await self.get_all(tenant, list(dict.fromkeys(ids)), held=True)
        going = [file for file in files if file.expires_at_ms is not None or file.job is not None]
        keys = [RecordKey(HOLD, tenant, f"{file.id}:{job}") for file in going]
        if keys:
            await self.ledger.put([Put(key, "{}", ttl_ms=HOLD_TTL_MS) for key in keys])

    async def owns_store(self) -> bool:
        """Whether the store is this engine's own: only then may what nobody names be deleted from it."""
        if self._owns is None:
            self._owns = await owns(self.ledger, self.store, self.new_id())
        return self._owns

    async def _check_owner(self) -> None:
        """Two engines in one store would each delete the other's blobs as ones that nobody names."""
        if not await self.owns_store():
            raise FilesNotKept(
                f"{self.store.url} belongs to another engine: give each engine a store of its own; if that engine is "
                f"gone for good, remove `owner` from the store"
            )

    # -- the quota

    async def usage(self, tenant: str) -> Usage:
        """What a tenant's uploads take now."""
        (record,) = await self.ledger.fetch([RecordKey(USE, tenant, USE_ID)])
        return Usage() if record is None else msgspec.json.decode(record.body, type=Usage)

    async def count(self, tenant: str, size: int, files: int, quota_bytes: int | None = None) -> None:
        """Add to what they take. Raises QuotaExhausted when that is more than the quota, having added nothing."""
        key = RecordKey(USE, tenant, USE_ID)
        for _ in range(CAS_TRIES):
            (record,) = await self.ledger.fetch([key])
            now = Usage() if record is None else msgspec.json.decode(record.body, type=Usage)
            then = Usage(max(now.size + size, 0), max(now.files + files, 0))
            if quota_bytes is not None and then.size > quota_bytes:
                raise _exhausted(quota_bytes)
            body = msgspec.json.encode(then).decode()
            (answer,) = await self.ledger.put([Put(key, body, 0 if record is None else record.version)])
            if isinstance(answer, Record):
                return
        raise FilesUnavailable("too many uploads of one tenant end at the same time: try again")

    async def _enter(self, tenant: str, file: FileRecord, quota_bytes: int | None) -> None:
        """Reference, books, record. What fails here is swept, but for what is refused, which goes at once."""
        reference = msgspec.json.encode(Reference(tenant, file.id, file.job)).decode()
        await self.ledger.put([Put(RecordKey(BLOB, "", file.blob), reference)])
        if file.job is None:
            try:
                await self.count(tenant, file.size, 1, quota_bytes)
            except QuotaExhausted:
                await self.forget(file.blob)
                raise
        kind = FILE if file.job is None else JOB_FILE
        body = msgspec.json.encode(file).decode()
        await self.ledger.put([Put(RecordKey(kind, tenant, record_id(file.id)), body)])


def record_id(file: str) -> str:
    """Where a file's record stands: its id with the time turned round, so that the newest comes first."""
    at_ms = int(file[5:17], 16) if is_file_id(file) else 0
    return f"{LATEST_MS - at_ms:012x}{file[17:]}"


def guessed_type(filename: str) -> str:
    """The content type that a name suggests; the general one where it suggests none."""
    kind, encoding = _types.guess_type(filename)
    return kind if kind is not None and encoding is None else DEFAULT_CONTENT_TYPE


def _files_of(records: Sequence[Record | None]) -> list[FileRecord]:
    return [msgspec.json.decode(record.body, type=FileRecord) for record in records if record is not None]


async def _bounded(chunks: AsyncIterable[bytes], limit: int | None, room: int | None) -> AsyncIterator[bytes]:
    """The chunks, counted while they come."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if limit is not None and size > limit:
            raise PayloadTooLarge(f"the file is larger than {limit:,} bytes, the most that is taken here")
        if room is not None and size > room:
            raise _exhausted(size if room < 0 else room)
        yield chunk


def _exhausted(quota_bytes: int) -> QuotaExhausted:
    return QuotaExhausted(f"the files would take more than the {quota_bytes:,} bytes that are left: delete some")

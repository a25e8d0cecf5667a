"""Blobs in a bucket of S3, or of anything that speaks its protocol: `<prefix>/blobs/<when>-<random>`.

The client is object_store, in Rust: it signs, retries, uploads in parts and takes back what was not finished. A key
says when its upload began; an upload that died with its process leaves parts that only a lifecycle rule of the bucket
removes (AbortIncompleteMultipartUpload).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store as Bucket

from ropeway.blobs.base import Blob, BlobStat, blocks
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.file import BlobMissing, FilesUnavailable
from ropeway.domain.ids import RandomBytes, system_random

if TYPE_CHECKING:
    from obstore import GetOptions

__all__ = ["S3Store"]

ROOM = "blobs/"
OWNER = "owner"
PART_BYTES = 5 << 20  # the least that S3 takes; and it takes 10,000 of them: 50 GB a file
PARTS_AT_ONCE = 2  # of one upload: what of it is in memory at a time
READ_BYTES = 256 << 10
RETRY_S = 15.0  # beyond that a caller is told, who can say it to somebody

_KEY = re.compile(r"([0-9a-f]{12})-[0-9a-f]{32}")
_OPTIONS = {"endpoint", "region"}


class S3Store:
    """A bucket, which must be there. Shared by all machines that have its credentials."""

    def __init__(self, url: str, *, clock: Clock | None = None, random: RandomBytes = system_random) -> None:
        """`url` is `s3://bucket/prefix`, with `?endpoint=` and `&region=` where the environment does not say them.

        Raises InvalidRequest for a URL that names no bucket, or another option.
        """
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        if not parts.hostname or parts.username is not None or options.keys() - _OPTIONS:
            raise InvalidRequest("files on S3: s3://BUCKET/PREFIX?endpoint=URL&region=NAME", param="blobs")
        endpoint = options.get("endpoint")
        self.url = f"s3://{parts.netloc}{parts.path}"
        try:
            self._bucket = Bucket(
                parts.netloc,
                prefix=parts.path.strip("/") or None,
                client_options={"allow_http": bool(endpoint and endpoint.startswith("http:"))},
                retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=RETRY_S)},
                **options,  # type: ignore[arg-type]  # both are plain strings, and checked above
            )
        except (BaseError, ValueError) as error:
            raise InvalidRequest(f"files on S3: {str(error).splitlines()[0][:300]}", param="blobs") from error
        self._clock = clock or SystemClock()
        self._random = random

    async def write(self, chunks: AsyncIterable[bytes]) -> Blob:
        key = f"{self._clock.now_ms():012x}-{self._random(16).hex()}"
        upload = _Upload(blocks(chunks))
        start = await upload.start()
        with self._told(key):
            if upload.is_over:
                await obstore.put_async(self._bucket, ROOM + key, start)
            else:
                body = upload.rest(start)
                await obstore.put_async(
                    self._bucket, ROOM + key, body, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
                )
        return Blob(key, upload.hash.hexdigest(), upload.size)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        _check(key)
        if end is not None and start >= end:
            return
        wanted: GetOptions = {}
        if end is not None:
            wanted["range"] = (start, end)
        elif start:
            wanted["range"] = {"offset": start}
        with self._told(key):
            answer = await obstore.get_async(self._bucket, ROOM + key, options=wanted)
            async for block in answer.stream(min_chunk_size=READ_BYTES):
                yield bytes(block)

    async def delete(self, key: str) -> None:
        if _KEY.fullmatch(key):
            with contextlib.suppress(BlobMissing), self._told(key):
                await obstore.delete_async(self._bucket, ROOM + key)

    async def scan(self) -> AsyncIterator[BlobStat]:
        with self._told(ROOM):
            async for page in obstore.list(self._bucket, ROOM.rstrip("/")):
                for found in page:
                    key = found["path"].rpartition("/")[2]
                    parts = _KEY.fullmatch(key)
                    if parts is not None:
                        yield BlobStat(key, found["size"], int(parts[1], 16))

    async def tidy(self, before_ms: int) -> int:
        return 0  # unfinished uploads are no objects: see above

    async def claim(self, owner: str) -> str:
        with self._told(OWNER):
            try:
                await obstore.put_async(self._bucket, OWNER, owner.encode(), mode="create")
            except AlreadyExistsError:
                answer = await obstore.get_async(self._bucket, OWNER)
                return bytes(await answer.bytes_async()).decode("utf-8", "replace")
        return owner

    @contextlib.contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """What the client says of the store, in our words."""
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise FilesUnavailable(f"{self.url}: there is no such bucket") from error
            raise BlobMissing(f"blob {key} is not in {self.url}") from error
        except (BaseError, PermissionError) as error:
            raise FilesUnavailable(f"{self.url} does not work: {str(error).splitlines()[0][:300]}") from error


class _Upload:
    """What is to be written, counted and hashed as it goes."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self.hash = hashlib.sha256()
        self.size = 0
        self.is_over = False
        self._chunks = chunks

    async def start(self) -> bytes:
        """The first part, which most often is the whole: that takes one request, and parts take three at the least."""
        first: list[bytes] = []
        async for chunk in self._counted():
            first.append(chunk)
            if self.size >= PART_BYTES:
                break
        else:
            self.is_over = True
        return b"".join(first)

    async def rest(self, start: bytes) -> AsyncGenerator[bytes, None]:
        yield start
        async for chunk in self._counted():
            yield chunk

    async def _counted(self) -> AsyncGenerator[bytes, None]:
        while (chunk := await anext(self._chunks, None)) is not None:
            self.hash.update(chunk)
            self.size += len(chunk)
            yield chunk


def _check(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise BlobMissing(f"{key[:100]!r} is no key of a blob on S3")

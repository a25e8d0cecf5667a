"""A file as an answer: streamed from its store, whole or a range of it, and never as a page of this origin.

What was uploaded may be a page with a script in it. It is sent as an attachment, its type is not to be guessed at, and
a browser that shows it all the same does so in a sandbox without a thing allowed.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from ropeway.blobs import Files
from ropeway.domain.errors import JobPurged
from ropeway.domain.file import OUTPUT_PURPOSE, FileNotFound, FileRecord, referred_output
from ropeway.domain.job import Job
from ropeway.serving.deadlines import Deadlines
from ropeway.serving.options import GatewayOptions
from ropeway.serving.parts import Parts
from ropeway.serving.problems import RangeNotSatisfiable
from ropeway.serving.replies import Headers, Receive, Reply, Scope, Send
from ropeway.serving.requests import HeaderMap

__all__ = ["FileReply", "file_reply", "output_reply"]

_RANGE = re.compile(rb"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)
_INERT = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"private, no-cache"),
    (b"accept-ranges", b"bytes"),
)


class FileReply:
    """The bytes of a file from `start` up to, not with, `end`; itself an ASGI application."""

    def __init__(
        self,
        files: Files,
        file: FileRecord,
        options: GatewayOptions,
        deadlines: Deadlines,
        *,
        start: int = 0,
        end: int | None = None,
        headers: Headers = (),
    ) -> None:
        self._files = files
        self._file = file
        self._deadline_s = options.write_deadline_s
        self._deadlines = deadlines
        self._start = start
        self._end = file.size if end is None else end
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises BlobMissing and FilesUnavailable before anything was sent; after that it breaks off."""
        blocks = self._files.read(self._file, self._start, self._end)
        first = await anext(blocks, b"") if self._end > self._start and scope["method"] != "HEAD" else b""
        is_part = self._end - self._start < self._file.size
        await send({"type": "http.response.start", "status": 206 if is_part else 200, "headers": self._all_headers()})
        try:
            if first:
                await self._write(send, first)
                async for block in blocks:
                    await self._write(send, block)
            await self._write(send, b"", more=False)
        except TimeoutError:  # who takes nothing for so long is let go, and may ask for the rest
            return
        finally:
            await blocks.aclose()

    async def _write(self, send: Send, data: bytes, *, more: bool = True) -> None:
        with self._deadlines.limit(self._deadline_s):
            await send({"type": "http.response.body", "body": data, "more_body": more})

    def _all_headers(self) -> list[tuple[bytes, bytes]]:
        file, size = self._file, self._end - self._start
        headers = [
            (b"content-type", file.content_type.encode("latin-1", "replace")),
            (b"content-length", b"%d" % size),
            (b"etag", _etag(file)),
            *_INERT,
            *self._headers,
        ]
        if size < file.size:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (self._start, self._end - 1, file.size)))
        if file.purpose != OUTPUT_PURPOSE:  # which is JSON of our own, and nothing to be saved by a browser
            headers.append((b"content-disposition", _disposition(file.filename)))
        return headers


def file_reply(
    files: Files, file: FileRecord, options: GatewayOptions, deadlines: Deadlines, headers: HeaderMap
) -> FileReply | Reply:
    """The answer to who asks for a file with these headers. Raises RangeNotSatisfiable."""
    if _names(headers.get(b"if-none-match"), _etag(file)):
        return Reply(304, headers=[(b"etag", _etag(file))])
    start, end = 0, file.size
    asked = headers.get(b"range")
    condition = headers.get(b"if-range")
    if asked is not None and (condition is None or condition.strip() == _etag(file)):
        start, end = _range(asked, file.size)
    return FileReply(files, file, options, deadlines, start=start, end=end)


async def output_reply(parts: Parts, job: Job, headers: HeaderMap) -> FileReply | Reply | None:
    """The output of a job that is in a file; None when it is in the job's row.

    Raises JobPurged when the file has been deleted.
    """
    named = referred_output(job.output or "")
    if named is None or parts.files is None:
        return None
    try:
        (file,) = await parts.files.get_all(job.tenant, [named], held=True)
    except FileNotFound:
        raise JobPurged(f"the output of {job.id} was deleted") from None
    return file_reply(parts.files, file, parts.options, parts.deadlines, headers)


def _range(asked: bytes, size: int) -> tuple[int, int]:
    """The one range that is asked for; all of it for what we do not read: several ranges, another unit (RFC 9110)."""
    found = _RANGE.fullmatch(asked.strip())
    if found is None or found[0].endswith(b"=-"):
        return 0, size
    first, last = found.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), size if not last else min(int(last) + 1, size)
        if last and int(last) < int(first):
            return 0, size  # no range at all, says the RFC
    if start >= end:
        raise RangeNotSatisfiable(size)
    return start, end


def _etag(file: FileRecord) -> bytes:
    return f'"{file.sha256}"'.encode()


def _names(condition: bytes | None, etag: bytes) -> bool:
    if condition is None:
        return False
    known = [one.strip().removeprefix(b"W/") for one in condition.split(b",")]
    return etag in known or known == [b"*"]


def _disposition(filename: str) -> bytes:
    """`attachment` with the name for all who read it (RFC 6266): plain for the old, UTF-8 for the others."""
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\%' else "_" for char in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}".encode()

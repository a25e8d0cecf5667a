"""What comes in as a file: raw, or as a part of a form; never whole in memory, and counted while it comes.

The form's parser is python-multipart, in its streaming form. Of its input only one part named `file` may be large.
Everything that its published faults (CVE-2024-53981, CVE-2026-42561 and others) were about is bounded here besides:
the boundary, the parts, their headers, the other fields, and what comes around the parts.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from ropeway.domain.errors import InvalidRequest, PayloadTooLarge
from ropeway.serving.deadlines import Deadlines
from ropeway.serving.options import GatewayOptions
from ropeway.serving.problems import RequestTimeout, UnsupportedMediaType
from ropeway.serving.replies import Receive
from ropeway.serving.requests import ClientGone, HeaderMap

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["FORM_ROOM_BYTES", "Form", "body_chunks", "digest_in", "is_form"]

FORM_ROOM_BYTES = 256 << 10  # what a form may have besides the file's bytes
PARTS = 32
PART_HEADERS = 8
HEADER_BYTES = 4_224
FIELD_BYTES = 4_096
BOUNDARY_LIMIT = 70  # RFC 2046, section 5.1.1

_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_DIGEST = re.compile(rb"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{1,64}):", re.IGNORECASE)


async def body_chunks(
    receive: Receive, headers: HeaderMap, options: GatewayOptions, deadlines: Deadlines, limit_bytes: int
) -> AsyncIterator[bytes]:
    """The body as it comes. It may take `upload_deadline_s`, and stop for `body_deadline_s` on the way.

    Raises PayloadTooLarge beyond `limit_bytes` or when more is announced, RequestTimeout, UnsupportedMediaType for an
    encoded body, ClientGone.
    """
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise UnsupportedMediaType("a body with a Content-Encoding is not read here: send it as it is")
    _check_announced(headers.get(b"content-length"), limit_bytes)
    size, more = 0, True
    loop = asyncio.get_running_loop()
    due_s = loop.time() + options.upload_deadline_s
    while more:
        try:
            with deadlines.limit(min(options.body_deadline_s, due_s - loop.time())):
                message = await receive()
        except TimeoutError:
            raise RequestTimeout("the file stopped coming, or took too long as a whole") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        more = message.get("more_body", False)
        if chunk:
            yield chunk


def is_form(headers: HeaderMap) -> bool:
    """Whether the body is a form with parts. Raises UnsupportedMediaType for other kinds of multipart."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind.startswith(b"multipart/") and kind != b"multipart/form-data":
        named = kind[:80].decode("latin-1")
        raise UnsupportedMediaType(f"of the multipart types only multipart/form-data is read, not {named}")
    return kind == b"multipart/form-data"


def digest_in(headers: HeaderMap) -> str | None:
    """The SHA-256 of the body as 64 hex digits, when Repr-Digest or Content-Digest tells it (RFC 9530).

    Raises InvalidRequest for one that is none. Other algorithms are passed over, as the RFC wants it.
    """
    for name in (b"repr-digest", b"content-digest"):
        found = _DIGEST.search(headers.get(name, b""))
        if found is not None:
            try:
                digest = base64.b64decode(found[1], validate=True)
            except binascii.Error:
                digest = b""
            if len(digest) != 32:
                raise InvalidRequest("a sha-256 digest is 32 bytes in base64 between colons", param=name.decode())
            return digest.hex()
    return None


class Form:
    """One form, parsed as it comes: iterate over `file`, then read what the other fields were.

    `fields` are the others by name, `filename` and `content_type` what the file's part said.
    """

    def __init__(self, headers: HeaderMap, chunks: AsyncIterator[bytes]) -> None:
        """Raises InvalidRequest for a form without a proper boundary."""
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.content_type: str | None = None
        self.has_file = False
        self._chunks = chunks
        self._ready: list[bytes] = []
        self._part = _Part()
        self._parts = 0
        self._around = 0
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        self._parser = MultipartParser(
            _boundary(headers), callbacks, max_header_count=PART_HEADERS, max_header_size=HEADER_BYTES
        )

    async def file(self) -> AsyncIterator[bytes]:
        """The bytes of the part named `file`. Raises InvalidRequest for what is no such form, or has no such part."""
        async for chunk in self._chunks:
            self._feed(chunk)
            for ready in self._ready:
                yield ready
            self._ready.clear()
        if not self._ended:
            raise InvalidRequest("the form ends in the middle: its last boundary did not come", param="file")
        if not self.has_file:
            raise InvalidRequest("the form has no part named 'file'", param="file")

    def _feed(self, chunk: bytes) -> None:
        in_file = sum(map(len, self._ready))
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise InvalidRequest(f"the body is no form: {error}", param="file") from error
        in_file = sum(map(len, self._ready)) - in_file
        self._around += len(chunk) - in_file
        if self._around > FORM_ROOM_BYTES:
            raise PayloadTooLarge(f"the form has more than {FORM_ROOM_BYTES:,} bytes besides the file")

    # -- what the parser calls

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > PARTS:
            raise PayloadTooLarge(f"the form has more than {PARTS} parts")
        self._part = _Part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _header_end(self) -> None:
        self._part.headers[self._part.header_name.lower()] = self._part.header_value
        self._part.header_name = self._part.header_value = b""

    def _headers_end(self) -> None:
        part = self._part
        kind, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        part.name = _text(options.get(b"name", b""))
        if kind != b"form-data" or not part.name:
            raise InvalidRequest("a part of the form has no name", param="file")
        if part.name == "file":
            if self.has_file:
                raise InvalidRequest("the form has two parts named 'file': send them one by one", param="file")
            self.has_file = True
            self.filename = _text(options.get(b"filename", b""))
            self.content_type = _text(part.headers.get(b"content-type", b"")) or None

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.name == "file":
            self._ready.append(data[start:end])
            return
        part.value += data[start:end]
        if len(part.value) > FIELD_BYTES:
            raise PayloadTooLarge(f"field {part.name[:40]!r} of the form has more than {FIELD_BYTES:,} bytes")

    def _end_part(self) -> None:
        if self._part.name != "file":
            self.fields[self._part.name] = _text(self._part.value)

    def _end(self) -> None:
        self._ended = True


class _Part:
    """The part that is being parsed."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.header_name = b""
        self.header_value = b""
        self.name = ""
        self.value = b""


def _boundary(headers: HeaderMap) -> bytes:
    _, options = parse_options_header(headers.get(b"content-type", b""))
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= BOUNDARY_LIMIT or not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequest(f"the form's boundary is not 1 to {BOUNDARY_LIMIT} plain characters", param="Content-Type")
    return boundary


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _check_announced(length: bytes | None, limit_bytes: int) -> None:
    if length is None:
        return
    if not length.isdigit():
        raise InvalidRequest("Content-Length is not a number", param="Content-Length")
    if len(length) > 18 or int(length) > limit_bytes:
        raise _too_large(limit_bytes)


def _too_large(limit_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the file is larger than {limit_bytes:,} bytes, the most that is taken here")

"""The routes of files: upload, list, look, download, delete. The same serve OpenAI's SDKs (`client.files`).

Who else makes files in the gateway (batches, say) uses `parts.files`, a `ropeway.blobs.Files`:

    file = await parts.kept_files.create(tenant, chunks, About("out.jsonl", purpose="batch_output"))
    file = await parts.kept_files.get(tenant, id)             # raises FileNotFound, which is answered 404
    async for block in parts.kept_files.read(file): ...
    await parts.kept_files.delete(tenant, id)

`kept_files` raises FilesNotKept (501) where the gateway has no store; `chunks` is an async iterator of bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator

from starlette.requests import Request

from ropeway.blobs import About, FileLimits, Files
from ropeway.blobs.upload import Upload
from ropeway.client.files import FileGone, FileList, file_body
from ropeway.domain.errors import InvalidRequest, RopewayError
from ropeway.domain.file import DEFAULT_CONTENT_TYPE, DEFAULT_PURPOSE, FileNotFound, FileRecord, is_file_id
from ropeway.serving.callers import caller_of, tenant_of
from ropeway.serving.files.downloads import FileReply, file_reply
from ropeway.serving.files.routes import LIST_DEFAULT, LIST_LIMIT
from ropeway.serving.files.uploads import FORM_ROOM_BYTES, Form, body_chunks, digest_in, is_form
from ropeway.serving.parts import Parts
from ropeway.serving.problems import Draining, TooManyStreams
from ropeway.serving.questions import base_of
from ropeway.serving.replies import Reply, json_reply
from ropeway.serving.requests import HeaderMap, header_map, idempotency_key

__all__ = ["FileRoutes"]

TTL_LIMIT_S = 366 * 86_400.0  # a year: what is longer is more likely milliseconds by mistake
FORM_URLENCODED = "application/x-www-form-urlencoded"  # what curl says of any body, unless it is told otherwise

_PURPOSE = re.compile(r"[a-z0-9_-]{1,64}")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")


class _Limits(FileLimits, frozen=True):
    """Limits as a gateway has them: there is always one for a file."""

    file_bytes: int


class FileRoutes:
    """One method for each route."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._uploads = 0

    async def upload_file(self, request: Request) -> Reply:
        if self._parts.watches.draining:
            raise Draining
        if self._uploads >= self._parts.options.max_uploads:
            raise TooManyStreams("as many uploads come in at this gateway as may at once")
        self._uploads += 1
        try:
            return await self._upload(request)
        finally:
            self._uploads -= 1

    async def _upload(self, request: Request) -> Reply:
        headers = header_map(request.scope)
        is_formed = is_form(headers)
        about = _about(request, headers, has_digest=not is_formed)
        limits = self._limits(request)
        upload = Upload(self._files, tenant_of(request), idempotency_key(headers), limits)
        if is_formed:
            form = Form(headers, self._chunks(request, headers, limits.file_bytes + FORM_ROOM_BYTES))
            file = await _formed(upload, form, about)
        else:
            file = await upload.create(self._chunks(request, headers, limits.file_bytes), about)
        told = [(b"location", f"{base_of(request)}/v1/files/{file.id}".encode())]
        if upload.replayed:
            told.append((b"idempotency-replayed", b"true"))
        return json_reply(file_body(file), 200, told)

    async def list_files(self, request: Request) -> Reply:
        query = request.query_params
        if query.get("order", "desc") != "desc":
            raise InvalidRequest("files are listed newest first: order is desc", param="order")
        after = query.get("after")
        if after is not None and not is_file_id(after):
            raise InvalidRequest(f"{after[:40]!r} is no file's id", param="after")
        page = await self._files.list(
            tenant_of(request),
            purpose=_purpose(query.get("purpose")),
            after=after,
            limit=_limit(query.get("limit")),
        )
        data = [file_body(file) for file in page.files]
        return json_reply(
            FileList(data, page.has_more, data[0].id if data else None, data[-1].id if data else None),
        )

    async def get_file(self, request: Request) -> Reply:
        return json_reply(file_body(await self._file(request)))

    async def get_content(self, request: Request) -> FileReply | Reply:
        file = await self._file(request)
        parts = self._parts
        return file_reply(self._files, file, parts.options, parts.deadlines, header_map(request.scope))

    async def delete_file(self, request: Request) -> Reply:
        file = await self._files.delete(tenant_of(request), (await self._file(request)).id)
        return json_reply(FileGone(file.id))

    @property
    def _files(self) -> Files:
        return self._parts.kept_files

    async def _file(self, request: Request) -> FileRecord:
        id_: str = request.path_params["id"]
        if not is_file_id(id_):
            raise FileNotFound(f"no file {id_[:100]}")
        return await self._files.get(tenant_of(request), id_)

    # -- upload

    def _chunks(self, request: Request, headers: HeaderMap, most: int) -> AsyncIterator[bytes]:
        return body_chunks(request.receive, headers, self._parts.options, self._parts.deadlines, most)

    def _limits(self, request: Request) -> _Limits:
        """The gateway's, or the key's where that is lower."""
        options = self._parts.options
        own = caller_of(request.scope).limits.max_body_bytes
        most = options.max_file_bytes if own is None else min(own, options.max_file_bytes)
        return _Limits(most, options.max_tenant_file_bytes)


async def _formed(upload: Upload, form: Form, about: About) -> FileRecord:
    """A form may tell after the file what it is, so the bytes go first."""
    blob = await upload.write(form.file())
    try:
        about = _about_form(form, about)
    except RopewayError:
        await upload.forget(blob)
        raise
    return await upload.enter(blob, about)


def _about(request: Request, headers: HeaderMap, *, has_digest: bool) -> About:
    """What the address and the headers say of the file."""
    query = request.query_params
    sha256 = query.get("sha256")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise InvalidRequest("sha256 is 64 hex digits", param="sha256")
    kind = headers.get(b"content-type", b"").decode("latin-1")
    return About(
        filename=query.get("filename", ""),
        content_type=None if kind.startswith((FORM_URLENCODED, DEFAULT_CONTENT_TYPE)) else kind,
        purpose=_purpose(query.get("purpose")) or DEFAULT_PURPOSE,
        ttl_s=_ttl_s("expires_in", query.get("expires_in")),
        sha256=sha256 or (digest_in(headers) if has_digest else None),
    )


def _about_form(form: Form, about: About) -> About:
    """The same with what the form says; OpenAI's SDKs say all of it there."""
    anchor = form.fields.get("expires_after[anchor]", "created_at")
    if anchor != "created_at":
        raise InvalidRequest("a file's expiry counts from created_at", param="expires_after[anchor]")
    ttl_s = _ttl_s("expires_after[seconds]", form.fields.get("expires_after[seconds]"))
    kind = form.content_type
    return About(
        filename=about.filename or form.filename,
        content_type=None if kind is None or kind.startswith(DEFAULT_CONTENT_TYPE) else kind,
        purpose=_purpose(form.fields.get("purpose")) or about.purpose,
        ttl_s=ttl_s if ttl_s is not None else about.ttl_s,
        sha256=about.sha256,
    )


def _purpose(text: str | None) -> str | None:
    if text is not None and not _PURPOSE.fullmatch(text):
        raise InvalidRequest("a purpose is 1 to 64 of a-z, 0-9, '_', '-'", param="purpose")
    return text


def _ttl_s(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= TTL_LIMIT_S:
        raise InvalidRequest(f"{name} is a number of seconds from 1 to {TTL_LIMIT_S:.0f}", param=name)
    return seconds


def _limit(text: str | None) -> int:
    if text is None:
        return LIST_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= LIST_LIMIT):
        raise InvalidRequest(f"limit is a number from 1 to {LIST_LIMIT}", param="limit")
    return int(text)

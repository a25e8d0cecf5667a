"""An upload: looked at while it comes, streamed to the store of files, opened once, and made a job.

The bytes go to the store and, beside it, to a scratch file: the store may be a bucket, and what tells whether an image
can be read wants a file.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, NamedTuple

from starlette.requests import Request

from examples.crops.gauge import Gauge
from examples.crops.images import EXTENSIONS, MAGIC_BYTES, ImageRefused, check_image, kind_of, sniffed
from examples.crops.settings import GPU_QUEUE, GPU_TASK, QUEUE, TASK, CropsSettings
from examples.crops.shapes import Accepted
from ropeway import Client, File, GatewayOptions, InvalidRequest, PayloadTooLarge, RopewayError, Webhook
from ropeway.blobs import About, Blob, Files
from ropeway.client.submitter import OptionChanges
from ropeway.domain.file import FileRecord
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.targets import AllowList, target_of
from ropeway.serving.deadlines import Deadlines
from ropeway.serving.files.uploads import FORM_ROOM_BYTES, Form, body_chunks, is_form
from ropeway.serving.problems import TooManyStreams
from ropeway.serving.requests import header_map

__all__ = ["CROP_ID", "Intake", "checked_crop"]

CROP_ID = "crop_id"
"""The metadata under which a job keeps its crop."""

PURPOSE = "crops"
KEPT_S = 8 * 86_400.0  # an image outlives the job that failed with it, so that it can be tried again

_CROP = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_TYPES = {"GTiff": "image/tiff", "PNG": "image/png", "JPEG": "image/jpeg"}


class _Known(NamedTuple):
    """A form or a plain body, and what the address says of it."""

    chunks: AsyncIterator[bytes]
    form: Form | None
    name: str

    @property
    def filename(self) -> str:
        return (self.form.filename if self.form is not None else "") or self.name


class Intake:
    """Takes images for an open engine and its files."""

    def __init__(self, client: Client, files: Files, gauge: Gauge, own: CropsSettings, options: GatewayOptions) -> None:
        self._client = client
        self._files = files
        self._gauge = gauge
        self._own = own
        self._options = options
        self._deadlines = Deadlines()
        self._coming = 0

    async def take(self, crop_id: str, request: Request) -> Accepted:
        """An image as a form with a part `file`, or as the body with `?filename=`.

        Raises InvalidRequest with the reason for whatever is no image of the right kind and size, and as a submit.
        """
        crop_id = checked_crop(crop_id)
        if self._coming >= self._options.max_uploads:
            raise TooManyStreams("as many uploads come in at this gateway as may at once")
        self._coming += 1
        try:
            return await self._take(crop_id, request)
        finally:
            self._coming -= 1

    async def _take(self, crop_id: str, request: Request) -> Accepted:
        try:
            body = self._body(request)
            with tempfile.NamedTemporaryFile(prefix="crops-", suffix=".image") as scratch:
                blob = await self._files.write(DEFAULT_TENANT, self._watched(body, scratch))
                file = await self._checked(body, blob, scratch)
        except ImageRefused as refused:
            raise InvalidRequest(str(refused), param="file") from refused
        except PayloadTooLarge as error:
            about_form = "form" in error.detail  # a part of another name, or too many of them
            told = error.detail if about_form else f"the file is too large: at most {_mb(self._own.max_bytes)}"
            raise InvalidRequest(told, param="file") from error
        try:
            return await self._submit(crop_id, file, self._webhook(request, body))
        except RopewayError:
            await self._files.remove(DEFAULT_TENANT, file)
            raise

    # -- the bytes

    def _body(self, request: Request) -> _Known:
        headers = header_map(request.scope)
        name = request.query_params.get("filename", "")
        formed = is_form(headers)
        if not formed:
            kind_of(name)  # before a byte of it is read
        room = FORM_ROOM_BYTES if formed else 0
        chunks = body_chunks(request.receive, headers, self._options, self._deadlines, self._own.max_bytes + room)
        if not formed:
            return _Known(chunks, None, name)
        form = Form(headers, chunks)
        return _Known(form.file(), form, name)

    async def _watched(self, body: _Known, scratch: IO[bytes]) -> AsyncIterator[bytes]:
        """The image's bytes, on their way to the store. What is no image is found at its first ones."""
        first, size = b"", 0
        async for chunk in body.chunks:
            if len(first) < MAGIC_BYTES:
                first += chunk[:MAGIC_BYTES]
                if len(first) >= MAGIC_BYTES:
                    sniffed(first, kind_of(body.filename))
            size += len(chunk)
            if size > self._own.max_bytes:
                raise ImageRefused(f"the file is too large: at most {_mb(self._own.max_bytes)}")
            scratch.write(chunk)  # to the system's memory: a thread for each piece would cost more
            yield chunk
        kind_of(body.filename)
        if size < self._own.min_bytes:
            raise ImageRefused(f"the file is too small: {size:,} bytes, at least {_mb(self._own.min_bytes)}")
        sniffed(first, kind_of(body.filename))

    async def _checked(self, body: _Known, blob: Blob, scratch: IO[bytes]) -> FileRecord:
        """The image as a file of ours, when it can be read."""
        kind = kind_of(body.filename)
        try:
            scratch.flush()
            await asyncio.to_thread(check_image, Path(scratch.name), kind)
        except ImageRefused:
            await self._files.store.delete(blob.key)
            raise
        suffix = next(suffix for suffix, one in EXTENSIONS.items() if one == kind)
        name = f"{Path(body.filename).stem}{suffix}"  # whose type a worker can go by
        return await self._files.enter(DEFAULT_TENANT, blob, About(name, _TYPES[kind], PURPOSE, KEPT_S))

    # -- the job

    async def _submit(self, crop_id: str, file: FileRecord, webhook: Webhook | None) -> Accepted:
        task, queue = (GPU_TASK, GPU_QUEUE) if await self._gauge.has_gpu() else (TASK, QUEUE)
        wait_s = await self._gauge.wait_s(queue)
        changes: OptionChanges = {"metadata": {CROP_ID: crop_id}, "tags": ("crops",)}
        if webhook is not None:
            changes["webhook"] = webhook
        job = await self._client.with_options(**changes).submit(task, image=File(file.id), crop_id=crop_id)
        status = "queued"
        if job.cached:
            await self._files.remove(DEFAULT_TENANT, file)  # the job has the same bytes under its own name
            status = (await job.get()).state.value
        return Accepted(
            job_id=job.id,
            status=status,
            crop_id=crop_id,
            poll_url=f"/api/results/{job.id}",
            estimated_wait_seconds=0.0 if status == "succeeded" else wait_s,
            cached=job.cached,
            events_url=f"/v1/jobs/{job.id}/events",
        )

    def _webhook(self, request: Request, body: _Known) -> Webhook | None:
        """Whom to tell. Raises InvalidRequest for an address that nobody may be told at."""
        formed = None if body.form is None else body.form.fields.get("webhook_url")
        url = formed or request.query_params.get("webhook_url")
        if not url:
            return None
        target_of(url, AllowList(self._options.webhook_allow))
        return Webhook(url)


def checked_crop(text: str) -> str:
    """A crop's id. Raises InvalidRequest for what cannot be one."""
    if not _CROP.fullmatch(text):
        raise InvalidRequest("a crop's id is 1 to 128 of letters, digits, '_', '-', '.'", param="crop_id")
    return text


def _mb(size: int) -> str:
    return f"{size / 1e6:g} MB" if size >= 100_000 else f"{size:,} bytes"

"""The routes of files: the same that OpenAI's SDKs ask for."""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.client.files import FileBody, FileGone, FileList
from ropeway.domain.caller import Scope
from ropeway.serving.route import JSON, Answer, Param, Route

__all__ = ["FILE_ROUTES", "LIST_DEFAULT", "LIST_LIMIT"]

LIST_DEFAULT, LIST_LIMIT = 100, 10_000

_ID = Param("id", "path", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}, "The file's id.")
_PURPOSE: dict[str, Any] = {"type": "string", "pattern": "^[a-z0-9_-]{1,64}$"}
_ANY = "application/octet-stream"
_FORM = "multipart/form-data"


class FileForm(msgspec.Struct, frozen=True):
    """The form of an upload. Other fields are ignored."""

    file: str
    purpose: str = "user_data"


FILE_ROUTES = (
    Route(
        "POST",
        "/v1/files",
        "upload_file",
        "files",
        "Keep a file: the body is its bytes, or a form with a part named `file`. It is durable when this is answered.",
        (Answer(200, "The file.", ((JSON, FileBody),), ("Location", "Idempotency-Replayed")),),
        (
            Param(
                "Idempotency-Key",
                "header",
                {"type": "string", "minLength": 1, "maxLength": 255},
                "Makes the call safe to repeat: for a day, the same key and file give the same file.",
            ),
            Param("filename", "query", {"type": "string"}, "What people call it. In a form, its part says so."),
            Param("purpose", "query", _PURPOSE, "What it is for; `user_data` when nothing is said."),
            Param("expires_in", "query", {"type": "number", "minimum": 1}, "Seconds that it is kept; else for ever."),
            Param(
                "sha256",
                "query",
                {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"},
                "What the file's bytes must come to, or it is refused.",
            ),
            Param("Repr-Digest", "header", {"type": "string"}, "The same by RFC 9530, of a body that is no form."),
        ),
        ((_ANY, Any), (_FORM, FileForm)),
        needs_body=True,
        errors=(400, 408, 413, 415, 422, 429, 501, 503, 507),
        scope=Scope.files,
    ),
    Route(
        "GET",
        "/v1/files",
        "list_files",
        "files",
        "List uploads, newest first. What belongs to a job is named in its events and its output.",
        (Answer(200, "A page of files.", ((JSON, FileList),)),),
        (
            Param("purpose", "query", _PURPOSE, "For this purpose only."),
            Param("after", "query", {"type": "string"}, "The `last_id` of the page before."),
            Param(
                "limit",
                "query",
                {"type": "integer", "minimum": 1, "maximum": LIST_LIMIT, "default": LIST_DEFAULT},
                "Files on a page.",
            ),
            Param("order", "query", {"type": "string", "enum": ["desc"]}, "Newest first, which is the only order."),
        ),
        errors=(400, 501, 503),
        scope=Scope.files,
    ),
    Route(
        "GET",
        "/v1/files/{id}",
        "get_file",
        "files",
        "What is known of a file.",
        (Answer(200, "The file.", ((JSON, FileBody),)),),
        (_ID,),
        errors=(404, 501, 503),
        scope=Scope.files,
    ),
    Route(
        "GET",
        "/v1/files/{id}/content",
        "get_content",
        "files",
        "A file's bytes, or a range of them.",
        (
            Answer(200, "All of them.", ((_ANY, Any),), ("ETag",)),
            Answer(206, "Those asked for.", ((_ANY, Any),), ("ETag", "Content-Range")),
            Answer(304, "They are known."),
        ),
        (
            _ID,
            Param("Range", "header", {"type": "string", "examples": ["bytes=0-1023"]}, "One range of bytes."),
            Param("If-Range", "header", {"type": "string"}, "The ETag known: with another, all of the bytes come."),
            Param("If-None-Match", "header", {"type": "string"}, "The ETag known: 304 when it is still the same."),
        ),
        errors=(404, 416, 501, 503),
        scope=Scope.files,
    ),
    Route(
        "DELETE",
        "/v1/files/{id}",
        "delete_file",
        "files",
        "Delete a file, at once. A job that still needs it fails.",
        (Answer(200, "It is gone.", ((JSON, FileGone),)),),
        (_ID,),
        errors=(404, 501, 503),
        scope=Scope.files,
    ),
)

"""Files: bytes too large for a job's row, and what is known of them. A file belongs to a tenant, and maybe to a job.

A file's name is for people only: nothing is ever stored, found or opened by it.

    RopewayError
    ├── FileNotFound                404
    ├── DigestMismatch              400  what came is not what was announced
    ├── QuotaExhausted              429  this tenant's room, until it deletes files
    ├── FilesNotKept                501  there is no store of files here
    ├── FilesUnavailable            503  the store of files did not answer
    ├── StorageFull                 507  there is no room for the file
    └── BlobMissing                 500  a file is known, and its bytes are not in the store
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import msgspec

from ropeway.domain.errors import RopewayError

__all__ = [
    "ARTIFACT_PURPOSE",
    "DEFAULT_CONTENT_TYPE",
    "DEFAULT_PURPOSE",
    "JSON_CONTENT_TYPE",
    "OUTPUT_PURPOSE",
    "BlobMissing",
    "DigestMismatch",
    "FileNotFound",
    "FilePage",
    "FileRecord",
    "FilesNotKept",
    "FilesUnavailable",
    "QuotaExhausted",
    "StorageFull",
    "clean_content_type",
    "clean_filename",
    "file_id",
    "is_file_id",
    "reference",
    "referred",
    "referred_all",
    "referred_in",
    "referred_output",
]

MEMBER = "$file"
DEFAULT_PURPOSE = "user_data"
OUTPUT_PURPOSE = "output"  # of an output that was too large for its job's row
ARTIFACT_PURPOSE = "artifact"  # of what a task made beside its output
DEFAULT_CONTENT_TYPE = "application/octet-stream"
JSON_CONTENT_TYPE = "application/json"

NAME_BYTES = 255  # what file systems take, so that a download can be saved under its name
SUFFIX_BYTES = 32
TYPE_LIMIT = 100

_ID = re.compile(r"file_[0-9a-f]{32}")
_TYPE = re.compile(r"([\w!#$&^.+-]+/[\w!#$&^.+-]+)\s*(;\s*charset=[\w.-]+)?", re.ASCII | re.IGNORECASE)
_JOINERS = {"\u200c", "\u200d"}  # of letters in Persian, of signs in emoji; all else that is not seen may deceive


class FileNotFound(RopewayError):
    """No such file."""

    code = "file_not_found"


class QuotaExhausted(RopewayError):
    """This tenant's files take as much room as they may."""

    code = "quota_exhausted"


class DigestMismatch(RopewayError):
    """The bytes that came are not those that were announced."""

    code = "digest_mismatch"


class FilesNotKept(RopewayError):
    """There is no store of files here: set `blobs`."""

    code = "files_not_kept"


class FilesUnavailable(RopewayError):
    """The store of files did not answer."""

    code = "files_unavailable"
    retryable = True


class StorageFull(RopewayError):
    """There is no room for the file."""

    code = "storage_full"


class BlobMissing(RopewayError):
    """The file is known, and its bytes are not in the store."""

    code = "blob_missing"


class FileRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a file. `blob` is where its bytes are; `size` is in bytes.

    `job` is the job that it belongs to, and goes with; None: it stays until it is deleted, or expires.
    """

    id: str
    filename: str
    size: int
    sha256: str
    content_type: str
    purpose: str
    blob: str
    created_at_ms: int
    expires_at_ms: int | None = None
    job: str | None = None

    def expired(self, now_ms: int) -> bool:
        """Whether it is past its time: it is then as one that is not there, but for jobs that were given it before."""
        return self.expires_at_ms is not None and self.expires_at_ms <= now_ms


class FilePage(msgspec.Struct, frozen=True):
    """Files, newest first. `has_more`: ask again, after the last of them."""

    files: tuple[FileRecord, ...]
    has_more: bool


def file_id(now_ms: int, seed: bytes) -> str:
    """`file_` and 32 hex digits: 48 bits of time in ms, then the 80 bits of `seed` (10 bytes)."""
    return f"file_{now_ms:012x}{seed.hex()}"


def is_file_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def reference(file: str) -> dict[str, str]:
    """How a file stands in an input or an output, in place of what it holds."""
    return {MEMBER: file}


def referred(value: object) -> str | None:
    """The id of the file that stands here, if one does."""
    if isinstance(value, dict) and len(value) == 1:
        named = value.get(MEMBER)
        if isinstance(named, str) and is_file_id(named):
            return named
    return None


def referred_output(output: str) -> str | None:
    """The file that stands for a whole output, if one does."""
    return referred(msgspec.json.decode(output)) if output.startswith('{"$file"') else None


def referred_in(input_json: str | bytes) -> dict[str, str]:
    """The files that stand in an input, by the members whose place they take. JSON that is none has none."""
    members = _decoded(input_json)
    if not isinstance(members, dict):
        return {}
    found = {name: referred(value) for name, value in members.items()}
    return {name: file for name, file in found.items() if file is not None}


def referred_all(input_json: str | bytes) -> dict[str, str]:
    """Every file that stands anywhere in an input, with the JSON pointer to where it first does."""
    return dict(reversed(list(_all_in(_decoded(input_json), ""))))


def clean_filename(name: str) -> str:
    """A name as it may be shown and saved under: its last part, without what is not seen, at most 255 bytes."""
    text = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
    text = text.replace("\\", "/").rpartition("/")[2]
    text = "".join(
        char for char in text if char in _JOINERS or unicodedata.category(char)[0] not in "CZ" or char == " "
    )
    text = text.strip(" .")
    return _shortened(text) or "file"


def clean_content_type(text: str | None) -> str | None:
    """A media type, with its charset if any; None for what is none."""
    found = _TYPE.fullmatch((text or "").strip())
    if found is None or len(found[0]) > TYPE_LIMIT:
        return None
    return found[1].lower() + (f"; {found[2].lstrip('; ').lower()}" if found[2] else "")


def _decoded(input_json: str | bytes) -> object:
    """The input, if a file may stand in it at all: most have none, and are not read for it."""
    try:
        text = input_json.encode() if isinstance(input_json, str) else input_json
        return msgspec.json.decode(text) if b'"$file"' in text else None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _all_in(value: object, place: str) -> Iterator[tuple[str, str]]:
    file = referred(value)
    if file is not None:
        yield file, place
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _all_in(member, f"{place}/{name.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from _all_in(item, f"{place}/{n}")


def _shortened(name: str) -> str:
    if len(name.encode()) <= NAME_BYTES:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix.encode()) > SUFFIX_BYTES:
        stem, dot, suffix = name, "", ""
    room = NAME_BYTES - len((dot + suffix).encode())
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip(" .") + dot + suffix

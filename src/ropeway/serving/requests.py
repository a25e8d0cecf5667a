"""What comes in: headers, a body within its limits and its time, and what parameters and preferences say."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ropeway.domain.errors import InvalidRequest, PayloadTooLarge
from ropeway.serving.deadlines import Limit
from ropeway.serving.problems import RequestTimeout, UnsupportedMediaType
from ropeway.serving.replies import Receive, Scope

__all__ = [
    "ClientGone",
    "HeaderMap",
    "checked_key",
    "header_map",
    "idempotency_key",
    "is_ndjson",
    "parsed_flag",
    "parsed_wait_s",
    "preferred_wait_s",
    "read_body",
    "require_json",
    "wants_ndjson",
    "wants_sse",
]

HeaderMap = Mapping[bytes, bytes]

_JSON_TYPES = (b"application/json",)
_NDJSON_TYPES = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl")
_WAIT = re.compile(rb'(?:^|[,;\s])wait\s*=\s*"?(\d{1,9})"?', re.IGNORECASE)  # RFC 7240
_KEY = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_FLAGS = {"1": True, "true": True, "0": False, "false": False}


class ClientGone(Exception):
    """The client left before its request was whole."""


def header_map(scope: Scope) -> dict[bytes, bytes]:
    """The headers by name; of one that came twice, the last."""
    return dict(scope["headers"])


async def read_body(receive: Receive, headers: HeaderMap, limit_bytes: int, limit: Limit) -> bytes:
    """The whole body, counted while it comes in.

    Raises PayloadTooLarge beyond `limit_bytes` or when a larger one is announced, RequestTimeout when it is not
    whole within `limit`, UnsupportedMediaType for an encoded one, ClientGone.
    """
    if b"content-encoding" in headers and headers[b"content-encoding"].strip().lower() != b"identity":
        raise UnsupportedMediaType("a body with a Content-Encoding is not read here: send it as it is")
    _check_announced(headers.get(b"content-length"), limit_bytes)
    try:
        with limit:
            return await _collect(receive, limit_bytes)
    except TimeoutError:
        raise RequestTimeout("the body was not whole in time") from None


async def _collect(receive: Receive, limit_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body", False):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def _check_announced(length: bytes | None, limit_bytes: int) -> None:
    if length is None:
        return
    if not length.isdigit():
        raise InvalidRequest("Content-Length is not a number", param="Content-Length")
    if len(length) > 18 or int(length) > limit_bytes:
        raise _too_large(limit_bytes)


def _too_large(limit_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than {limit_bytes} bytes, the most that is read here")


def is_ndjson(headers: HeaderMap) -> bool:
    """Whether the body is announced as lines of JSON."""
    return _media_type(headers) in _NDJSON_TYPES


def require_json(headers: HeaderMap) -> None:
    """Raises UnsupportedMediaType for anything but JSON in UTF-8.

    A page of another origin can send the plain types without asking (reliability, section 5); this one it cannot.
    """
    kind = headers.get(b"content-type", b"")
    if kind == b"application/json":
        return
    if _media_type(headers) not in _JSON_TYPES:
        named = kind[:80].decode("latin-1") or "none"
        raise UnsupportedMediaType(f"Content-Type is {named!r}; send application/json")
    charset = kind.lower().partition(b"charset=")[2].strip(b' "')
    if charset and charset not in (b"utf-8", b"utf8"):
        raise UnsupportedMediaType("JSON is UTF-8: send it without another charset")


def _media_type(headers: HeaderMap) -> bytes:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def wants_sse(headers: HeaderMap) -> bool:
    return b"text/event-stream" in headers.get(b"accept", b"").lower()


def wants_ndjson(headers: HeaderMap) -> bool:
    accept = headers.get(b"accept", b"").lower()
    return any(kind in accept for kind in _NDJSON_TYPES)


def preferred_wait_s(headers: HeaderMap, most_s: float) -> float | None:
    """Seconds from `Prefer: wait=N` (RFC 7240), at most `most_s`: a preference is met as far as it can be."""
    found = _WAIT.search(headers.get(b"prefer", b""))
    return None if found is None else min(float(found[1]), most_s)


def parsed_wait_s(text: str, most_s: float) -> float:
    """Seconds from `?wait=`. Raises InvalidRequest for what is no number from 0 to `most_s`."""
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s <= most_s:
        raise InvalidRequest(f"wait is a number of seconds from 0 to {most_s:g}, not {text[:40]!r}", param="wait")
    return wait_s


def parsed_flag(name: str, text: str | None, default: bool) -> bool:
    """`1`, `true`, `0` or `false`. Raises InvalidRequest for anything else."""
    if text is None:
        return default
    if text.lower() not in _FLAGS:
        raise InvalidRequest(f"{name} is 1 or 0, not {text[:40]!r}", param=name)
    return _FLAGS[text.lower()]


def idempotency_key(headers: HeaderMap) -> str | None:
    """The Idempotency-Key header. Raises InvalidRequest for one that is not 1 to 255 visible ASCII characters."""
    key = headers.get(b"idempotency-key")
    return None if key is None else checked_key(key.decode("latin-1"), "Idempotency-Key")


def checked_key(key: str, param: str) -> str:
    """An idempotency key. Raises InvalidRequest, which names `param`."""
    if not _KEY.fullmatch(key.encode("utf-8", "replace")):
        raise InvalidRequest("an idempotency key has 1 to 255 visible ASCII characters", param=param)
    return key

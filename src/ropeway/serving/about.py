"""The routes of the interface itself: its OpenAPI document, and that as a page that needs nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from pathlib import Path

import msgspec
from starlette.requests import Request

from ropeway.serving.openapi import build_document
from ropeway.serving.questions import base_of
from ropeway.serving.replies import JSON, Reply

__all__ = ["AboutRoutes"]

_PAGE = Path(__file__).with_name("docs.html")
_ASK_AGAIN = b"no-cache"


class AboutRoutes:
    """One method for each route."""

    async def get_openapi(self, request: Request) -> Reply:
        return Reply(200, _document(base_of(request)), JSON, cache_control=_ASK_AGAIN)

    async def get_docs(self, request: Request) -> Reply:
        page, policy = _page()
        return Reply(200, page, b"text/html; charset=utf-8", [(b"content-security-policy", policy)], _ASK_AGAIN)


@lru_cache(maxsize=8)
def _document(base: str) -> bytes:
    return msgspec.json.encode(build_document(base))


@lru_cache(maxsize=1)
def _page() -> tuple[bytes, bytes]:
    """The page, and a policy that lets it run its own script and style and nothing else."""
    page = _PAGE.read_bytes()
    allowed = {tag: _hash_of(page, tag) for tag in ("script", "style")}
    policy = (
        f"default-src 'none'; script-src '{allowed['script']}'; style-src '{allowed['style']}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy.encode()


def _hash_of(page: bytes, tag: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>".encode(), page, re.DOTALL)
    if found is None:
        raise AssertionError(f"docs.html has no <{tag}>")
    return f"sha256-{base64.b64encode(hashlib.sha256(found[1]).digest()).decode()}"

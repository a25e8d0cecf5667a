"""From a URL to a store of blobs: the only place that knows which stores there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from ropeway.blobs.base import BlobStore
from ropeway.blobs.files import Files
from ropeway.blobs.ledger import Ledger
from ropeway.domain.clock import Clock
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.ids import RandomBytes, system_random

__all__ = ["connect_blobs", "default_blobs", "files_of"]

_FORMS = "file:PATH (relative), file:///PATH (absolute) or s3://BUCKET/PREFIX"


def connect_blobs(url: str, *, clock: Clock | None = None, random: RandomBytes = system_random) -> BlobStore:
    """The store of a URL. Nothing is opened or made before its first use.

    `file:blobs` is relative to the working directory. `s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=local`
    takes its credentials from the environment (AWS_ACCESS_KEY_ID and so on) or the machine's role.

    Raises InvalidRequest for a URL that names no store, saying which do.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "file" and colon:
        from ropeway.blobs.folder import FolderStore  # a store is loaded when it is asked for

        return FolderStore(_path(url, rest), clock=clock, random=random)
    if scheme == "s3" and rest.startswith("//"):
        return _s3(url, clock, random)
    raise _refusal(f"{_shown(url)!r} names no store of files: use {_FORMS}")


class Told(Protocol):
    """What an engine tells of itself."""

    @property
    def url(self) -> str: ...


class Home(Ledger, Protocol):
    """An engine, as far as files need one."""

    @property
    def info(self) -> Told: ...


def files_of(
    engine: Home,
    blobs: str | BlobStore | None = None,
    *,
    clock: Clock | None = None,
    random: RandomBytes = system_random,
) -> Files | None:
    """The files of an engine: in the store that is given or named, else in its default place; None: it has none.

    Raises InvalidRequest for a URL that names no store.
    """
    named = default_blobs(engine.info.url) if blobs is None else blobs
    if named is None:
        return None
    store = connect_blobs(named, clock=clock, random=random) if isinstance(named, str) else named
    return Files(engine, store, clock=clock, random=random)


def default_blobs(engine_url: str) -> str | None:
    """Where files are kept when nobody says: beside the file of a SQLite engine. None for engines that have no place.

    `engine_url` may be an engine's own telling of it (`info.url`) as well.
    """
    scheme, _, rest = engine_url.partition(":")
    return f"file:{rest}-files" if scheme == "sqlite" and rest else None


def _s3(url: str, clock: Clock | None, random: RandomBytes) -> BlobStore:
    try:
        from ropeway.blobs.s3 import S3Store
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise _refusal("files on S3 need one more package: pip install 'ropeway[s3]'") from error
    return S3Store(url, clock=clock, random=random)


def _path(url: str, rest: str) -> Path:
    if rest.startswith("///"):
        return Path("/" + rest.lstrip("/"))
    if rest.startswith("//"):
        raise _refusal(f"{_shown(url)!r} names a host: for an absolute path write file:///PATH")
    if not rest or "\x00" in rest:
        raise _refusal(f"{_shown(url)!r} names no folder: use {_FORMS}")
    return Path(rest)


def _shown(url: str) -> str:
    """A URL that names no store, as it may be told: what may be a password is hidden."""
    return re.sub(r"(:/*).*@", r"\1***@", url)[:100]


def _refusal(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, param="blobs")

"""How large an engine's file is, where it has one."""

from __future__ import annotations

from pathlib import Path

__all__ = ["size_bytes"]

_PARTS = ("", "-wal", "-shm")


def size_bytes(url: str) -> int | None:
    """Bytes of a sqlite engine's files; None for other engines, and where the file is not there."""
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite" or not rest:
        return None
    file = "/" + rest.lstrip("/") if rest.startswith("///") else rest
    sizes = [path.stat().st_size for part in _PARTS if (path := Path(file + part)).exists()]
    return sum(sizes) if sizes else None

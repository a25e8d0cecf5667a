"""Where passages and their vectors are kept: a file, or a PostgreSQL server, by URL."""

from __future__ import annotations

from examples.rag.store.base import Embedded, Hit, Incomplete, PassageStore, StoreFailed

__all__ = ["Embedded", "Hit", "Incomplete", "PassageStore", "StoreFailed", "open_store"]


def open_store(url: str) -> PassageStore:
    """The store of a URL, `sqlite:PATH` or `postgresql://…`, made if it is not there. Blocks. Raises StoreFailed."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "sqlite" and rest:
        from examples.rag.store.sqlite import SqlitePassages

        return SqlitePassages(rest.removeprefix("//"))
    if scheme in ("postgresql", "postgres"):
        from examples.rag.store.postgres import PostgresPassages

        return PostgresPassages(url)
    raise StoreFailed("a store of passages is named sqlite:PATH or postgresql://USER@HOST/DATABASE")

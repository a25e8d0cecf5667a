"""Passages in PostgreSQL with pgvector: for workers on many machines, and for more vectors than are scanned one by one.

The index (HNSW) is of all tenants. It is asked to go on until it has enough of the one that searches
(`hnsw.iterative_scan`, since pgvector 0.8), so a small tenant beside a large one finds its own.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import msgspec

from examples.rag.store.base import DIMENSIONS, MODEL, Embedded, Hit, Incomplete, StoreFailed, packed

__all__ = ["PostgresPassages"]

CONNECT_S = 10
SEARCHED = 100  # candidates of the index (hnsw.ef_search): 40 by default, and our searches are few and short

_SCHEMA = f"""
SELECT pg_advisory_xact_lock(hashtext('rag_passages'));
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE IF NOT EXISTS rag_about (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE IF NOT EXISTS rag_documents (
    tenant text, name text, digest text NOT NULL, PRIMARY KEY (tenant, name)
);
CREATE TABLE IF NOT EXISTS rag_passages (
    tenant text, document text, id text, title text NOT NULL, sentences jsonb NOT NULL,
    vector vector({DIMENSIONS}) NOT NULL, sentence_vectors bytea NOT NULL, PRIMARY KEY (tenant, document, id)
);
CREATE INDEX IF NOT EXISTS rag_passages_vector ON rag_passages USING hnsw (vector vector_cosine_ops);
INSERT INTO rag_about VALUES ('model', '{MODEL}') ON CONFLICT DO NOTHING;
"""  # noqa: S608 - our own constants


class PostgresPassages:
    """A PassageStore on a server. A connection that breaks fails its call; the next call makes another.

    Raises StoreFailed when it cannot be reached, lacks pgvector, or has another model's vectors.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._connection: Any = None
        try:
            self._psycopg: Any = import_module("psycopg")
        except ModuleNotFoundError:
            raise StoreFailed("passages in PostgreSQL need psycopg: pip install 'ropeway[rag]'") from None
        where = urlsplit(url).hostname or "PostgreSQL"
        try:
            with self._transaction() as db:
                db.execute(_SCHEMA)
                (model,) = db.execute("SELECT value FROM rag_about WHERE name = 'model'").fetchone()
        except self._psycopg.Error as error:
            raise StoreFailed(f"{where} cannot be used as a store of passages: {_told(error)}") from error
        if model != MODEL:
            self.close()
            raise StoreFailed(f"{where} has the vectors of {model}, and {MODEL} is asked: take another database")

    def put(self, passages: Sequence[Embedded]) -> None:
        in_order = sorted(passages, key=lambda one: one.passage.id)  # two workers then wait, and do not lock
        rows = [_row(one) for one in in_order]
        with self._transaction() as db:
            db.cursor().executemany(
                "INSERT INTO rag_passages (tenant, document, id, title, sentences, vector, sentence_vectors) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                rows,
            )

    def known(self, tenant: str, document: str) -> set[str]:
        found = self._read("SELECT id FROM rag_passages WHERE tenant = %s AND document = %s", (tenant, document))
        return {row[0] for row in found}

    def finish(self, tenant: str, document: str, digest: str, passages: Sequence[str]) -> None:
        wanted = sorted(set(passages))
        with self._transaction() as db:
            (count,) = db.execute(
                "SELECT count(*) FROM rag_passages WHERE tenant = %s AND document = %s AND id = ANY(%s)",
                (tenant, document, wanted),
            ).fetchone()
            if count < len(wanted):
                raise Incomplete(f"passages of {document} have gone while it was ingested")
            db.execute(
                "DELETE FROM rag_passages WHERE tenant = %s AND document = %s AND id <> ALL(%s)",
                (tenant, document, wanted),
            )
            db.execute(
                "INSERT INTO rag_documents VALUES (%s, %s, %s) "
                "ON CONFLICT (tenant, name) DO UPDATE SET digest = excluded.digest",
                (tenant, document, digest),
            )

    def documents(self, tenant: str) -> Mapping[str, str]:
        return dict(self._read("SELECT name, digest FROM rag_documents WHERE tenant = %s", (tenant,)))

    def remove(self, tenant: str, documents: Collection[str]) -> None:
        names = list(documents)
        with self._transaction() as db:
            db.execute("DELETE FROM rag_passages WHERE tenant = %s AND document = ANY(%s)", (tenant, names))
            db.execute("DELETE FROM rag_documents WHERE tenant = %s AND name = ANY(%s)", (tenant, names))

    def search(self, tenant: str, vector: Sequence[float], limit: int) -> list[Hit]:
        wanted = _vector(vector)
        rows = self._read(
            "SELECT document, title, sentences, 1 - (vector <=> %s::vector), sentence_vectors FROM rag_passages "
            "WHERE tenant = %s ORDER BY vector <=> %s::vector LIMIT %s",
            (wanted, tenant, wanted, limit),
        )
        return [Hit(row[0], row[1], tuple(row[2]), row[3], bytes(row[4])) for row in rows]

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._transaction() as db:
            rows: list[tuple[Any, ...]] = db.execute(statement, values).fetchall()
            return rows

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """All of it, or nothing, on a connection that stands."""
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = self._psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_S)
                self._connection.execute(f"SET hnsw.ef_search = {SEARCHED}; SET hnsw.iterative_scan = strict_order")
            with self._connection.transaction():
                yield self._connection


def _row(one: Embedded) -> tuple[Any, ...]:
    passage = one.passage
    sentences = msgspec.json.encode(passage.sentences).decode()
    vectors = (_vector(one.vector), packed(one.sentence_vectors))
    return (one.tenant, passage.document, passage.id, passage.title, sentences, *vectors)


def _vector(vector: Sequence[float]) -> str:
    """As pgvector reads one."""
    return f"[{','.join(map(repr, map(float, vector)))}]"


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:500]

"""Passages in a SQLite file, with sqlite-vec: exact, and without a server. Any process of the machine may share it.

Through apsw, since many builds of Python's own sqlite3 load no extensions. The vectors of a tenant are apart from all
others (a partition key), so a search looks at its own alone.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import apsw
import msgspec

from examples.rag.store.base import DIMENSIONS, MODEL, Embedded, Hit, Incomplete, StoreFailed, packed

__all__ = ["SqlitePassages"]

BUSY_MS = 30_000  # while another process writes

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
    tenant TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS passages (
    number INTEGER PRIMARY KEY, tenant TEXT NOT NULL, document TEXT NOT NULL, id TEXT NOT NULL,
    title TEXT NOT NULL, sentences BLOB NOT NULL, sentence_vectors BLOB NOT NULL, UNIQUE (tenant, document, id)
);
CREATE VIRTUAL TABLE IF NOT EXISTS vectors USING vec0(
    number INTEGER PRIMARY KEY, tenant TEXT PARTITION KEY, vector FLOAT[{DIMENSIONS}] DISTANCE_METRIC=cosine
);
"""


class SqlitePassages:
    """A PassageStore in one file. Raises StoreFailed when it cannot be opened, or has another model's vectors."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()  # one connection: its statements are quicker than a second one is useful
        try:
            self._db = apsw.Connection(path)
            self._db.set_busy_timeout(BUSY_MS)
            self._db.enable_load_extension(True)
            self._db.load_extension(_extension())
            self._db.enable_load_extension(False)
            self._db.execute("PRAGMA journal_mode = wal; PRAGMA synchronous = normal;")
            with self._db_written() as db:
                db.execute(_SCHEMA)
                db.execute("INSERT INTO about VALUES ('model', ?) ON CONFLICT DO NOTHING", (MODEL,))
            model = self._db.execute("SELECT value FROM about WHERE name = 'model'").get
        except apsw.Error as error:
            raise StoreFailed(f"{path} cannot be used as a store of passages: {error}") from error
        if model != MODEL:
            self.close()
            raise StoreFailed(f"{path} has the vectors of {model}, and {MODEL} is asked: take another file")

    def put(self, passages: Sequence[Embedded]) -> None:
        with self._db_written() as db:
            for one in passages:
                row = (one.tenant, one.passage.document, one.passage.id, one.passage.title)
                sentences = msgspec.json.encode(one.passage.sentences)
                number = db.execute(
                    "INSERT INTO passages (tenant, document, id, title, sentences, sentence_vectors) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING number",
                    (*row, sentences, packed(one.sentence_vectors)),
                ).get
                if number is not None:
                    db.execute(
                        "INSERT INTO vectors (number, tenant, vector) VALUES (?, ?, ?)",
                        (number, one.tenant, packed([one.vector])),
                    )

    def known(self, tenant: str, document: str) -> set[str]:
        found = self._read("SELECT id FROM passages WHERE tenant = ? AND document = ?", (tenant, document))
        return {row[0] for row in found}

    def finish(self, tenant: str, document: str, digest: str, passages: Sequence[str]) -> None:
        with self._db_written() as db:
            rows = db.execute("SELECT number, id FROM passages WHERE tenant = ? AND document = ?", (tenant, document))
            numbers = {row[1]: row[0] for row in rows}
            if not numbers.keys() >= set(passages):
                raise Incomplete(f"passages of {document} have gone while it was ingested")
            _delete(db, [number for id_, number in numbers.items() if id_ not in set(passages)])
            db.execute(
                "INSERT INTO documents VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET digest = excluded.digest",
                (tenant, document, digest),
            )

    def documents(self, tenant: str) -> Mapping[str, str]:
        return dict(self._read("SELECT name, digest FROM documents WHERE tenant = ?", (tenant,)))

    def remove(self, tenant: str, documents: Collection[str]) -> None:
        with self._db_written() as db:
            for document in documents:
                rows = db.execute("SELECT number FROM passages WHERE tenant = ? AND document = ?", (tenant, document))
                _delete(db, [row[0] for row in rows])
                db.execute("DELETE FROM documents WHERE tenant = ? AND name = ?", (tenant, document))

    def search(self, tenant: str, vector: Sequence[float], limit: int) -> list[Hit]:
        rows = self._read(
            "SELECT document, title, sentences, 1 - distance, sentence_vectors "
            "FROM (SELECT number, distance FROM vectors WHERE vector MATCH ? AND tenant = ? AND k = ?) "
            "JOIN passages USING (number) ORDER BY distance",
            (packed([vector]), tenant, limit),
        )
        return [Hit(row[0], row[1], tuple(msgspec.json.decode(row[2])), row[3], row[4]) for row in rows]

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            return list(self._db.execute(statement, values))

    @contextmanager
    def _db_written(self) -> Iterator[apsw.Connection]:
        """All of it, or nothing; one process at a time."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _delete(db: apsw.Connection, numbers: Sequence[int]) -> None:
    for number in numbers:
        db.execute("DELETE FROM passages WHERE number = ?", (number,))
        db.execute("DELETE FROM vectors WHERE number = ?", (number,))


def _extension() -> str:
    try:
        return str(import_module("sqlite_vec").loadable_path())
    except ModuleNotFoundError:
        raise StoreFailed("passages in a file need sqlite-vec: pip install 'ropeway[rag]'") from None

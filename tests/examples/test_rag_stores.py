"""The stores of passages: one suite of the port's promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import psycopg
import pytest
from examples.rag.documents import Document, Passage, passages_of
from examples.rag.store import Embedded, Incomplete, PassageStore, StoreFailed, open_store
from examples.rag.store.base import DIMENSIONS, floats

from postgres import Postgres

TEXT = "# Ropes\n\nA rope is long. It is made of steel.\n\nIt is tested each year."


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(name="url", params=["sqlite", "postgresql"])
def make_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'passages.db'}"
    return emptied(request.getfixturevalue("postgres"))


def emptied(server: Postgres) -> str:
    """The server's URL, when what tests before left there is gone.

    It would sort so few passages itself: without that it takes the index, as it does with many.
    """
    with psycopg.connect(server.url, autocommit=True) as connection:
        for way in ("enable_sort", "enable_seqscan"):
            connection.execute(f"ALTER ROLE postgres SET {way} = off")
        connection.execute("DROP TABLE IF EXISTS rag_about, rag_documents, rag_passages")
    return server.url


@pytest.fixture(name="store")
def make_store(url: str) -> Iterator[PassageStore]:
    opened = open_store(url)
    yield opened
    opened.close()
    opened.close()


def pointing(*at: int) -> list[float]:
    """A vector of length 1 that points as much to each of these."""
    return [1 / math.sqrt(len(at)) if n in at else 0.0 for n in range(DIMENSIONS)]


def embedded(
    tenant: str, passages: Sequence[Passage], vectors: Sequence[Sequence[float]] | None = None
) -> list[Embedded]:
    """The passages, the nth of which points to n; each of its sentences to its own number."""
    pointed = vectors or [pointing(n) for n in range(len(passages))]
    return [
        Embedded(tenant, one, vector, [pointing(n) for n in range(len(one.sentences))])
        for one, vector in zip(passages, pointed, strict=True)
    ]


def document(text: str = TEXT, name: str = "ropes.md") -> tuple[Document, list[Passage]]:
    read = Document(name, f"digest of {text}", text)
    return read, passages_of(read)


def stored(store: PassageStore, tenant: str = "acme", text: str = TEXT, name: str = "ropes.md") -> list[Passage]:
    """A document that is whole, and its passages."""
    read, passages = document(text, name)
    store.put(embedded(tenant, passages))
    store.finish(tenant, read.name, read.digest, [one.id for one in passages])
    return passages


def test_what_was_put_is_found(store: PassageStore) -> None:
    """The nearest first, with its document, title, words, cosine, and the vectors of its sentences as they were."""
    stored(store)
    nearest, next_ = store.search("acme", pointing(0), 5)
    assert (nearest.document, nearest.title) == ("ropes.md", "Ropes")
    assert nearest.sentences == ("A rope is long.", "It is made of steel.")
    assert nearest.score == pytest.approx(1)
    assert [list(one) for one in floats(nearest.sentence_vectors)] == [pointing(0), pointing(1)]
    assert next_.sentences == ("It is tested each year.",)
    assert next_.score == pytest.approx(0)
    assert [hit.sentences for hit in store.search("acme", pointing(1), 1)] == [("It is tested each year.",)]


def test_nothing_is_found_where_nothing_is(store: PassageStore) -> None:
    """An empty store answers all questions."""
    assert store.search("acme", pointing(0), 5) == []
    assert (dict(store.documents("acme")), store.known("acme", "ropes.md")) == ({}, set())


def test_a_document_is_whole_when_it_is_finished(store: PassageStore) -> None:
    """Not before, though its passages are known, and found."""
    read, passages = document()
    store.put(embedded("acme", passages[:1]))
    assert store.known("acme", "ropes.md") == {passages[0].id}
    assert dict(store.documents("acme")) == {}
    with pytest.raises(Incomplete, match=r"ropes\.md"):
        store.finish("acme", read.name, read.digest, [one.id for one in passages])
    store.put(embedded("acme", passages))
    store.finish("acme", read.name, read.digest, [one.id for one in passages])
    assert dict(store.documents("acme")) == {"ropes.md": read.digest}


def test_what_is_put_twice_is_there_once(store: PassageStore) -> None:
    """So whoever does not know whether it was stored may store it again."""
    passages = stored(store)
    store.put(embedded("acme", passages))
    store.put([])
    assert len(store.search("acme", pointing(0), 10)) == len(passages)


def test_a_new_version_takes_the_place_of_the_old(store: PassageStore) -> None:
    """What stayed is kept, what is not in it any more is not found any more."""
    old = stored(store)
    new = stored(store, text=TEXT.replace("each year", "each month"))
    assert old[0].id == new[0].id
    assert store.known("acme", "ropes.md") == {one.id for one in new}
    found = {hit.sentences[-1] for hit in store.search("acme", pointing(0), 10)}
    assert found == {"It is made of steel.", "It is tested each month."}


def test_a_document_without_words_is_whole_too(store: PassageStore) -> None:
    """It has no passages, and is not read again and again."""
    stored(store, text="# Nothing yet")
    assert set(store.documents("acme")) == {"ropes.md"}
    assert store.search("acme", pointing(0), 5) == []


def test_a_document_is_forgotten_with_its_passages(store: PassageStore) -> None:
    """Others stay; one that is not there is no fault."""
    stored(store)
    stored(store, name="towers.md")
    store.remove("acme", ["ropes.md", "nothing.md"])
    assert set(store.documents("acme")) == {"towers.md"}
    assert {hit.document for hit in store.search("acme", pointing(0), 10)} == {"towers.md"}


def test_tenants_are_kept_apart(store: PassageStore) -> None:
    """The same document of two is two: neither finds, counts or removes what is the other's."""
    stored(store, "acme")
    stored(store, "bolt", text=TEXT.replace("steel", "hemp"))
    assert {hit.sentences[-1] for hit in store.search("acme", pointing(0), 10)} == {
        "It is made of steel.",
        "It is tested each year.",
    }
    assert store.search("carp", pointing(0), 10) == []
    store.remove("bolt", ["ropes.md"])
    assert len(store.search("acme", pointing(0), 10)) == 2
    assert (set(store.documents("acme")), set(store.documents("bolt"))) == ({"ropes.md"}, set())


def test_a_small_tenant_finds_its_own_beside_a_large_one(store: PassageStore) -> None:
    """Though hundreds of another's passages are nearer: all of its own come back, as many as were asked for."""
    chance = random.Random(7)
    near = [[value + chance.gauss(0, 0.001) for value in pointing(0)] for _ in range(600)]
    _, many = document("\n\n".join(f"Number {n}." for n in range(600)), "many.md")
    store.put(embedded("large", many, near))
    _, few = document("\n\n".join(f"Number {n}." for n in range(5)), "few.md")
    store.put(embedded("small", few, [pointing(0, n + 1) for n in range(5)]))
    assert {hit.document for hit in store.search("small", pointing(0), 5)} == {"few.md"}
    assert len(store.search("small", pointing(0), 5)) == 5


def test_it_outlives_those_who_open_it(url: str) -> None:
    """And several may have it open: what one stores, another finds."""
    one, two = open_store(url), open_store(url)
    stored(one)
    assert len(two.search("acme", pointing(0), 10)) == 2
    one.close()
    two.close()
    again = open_store(url)
    assert set(again.documents("acme")) == {"ropes.md"}
    again.close()


def test_many_write_at_once(url: str) -> None:
    """From several threads of several owners, the same passages and others: nobody fails, each is there once."""
    stores = [open_store(url) for _ in range(2)]
    _, passages = document("\n\n".join(f"Number {n}." for n in range(40)))
    rows = embedded("acme", passages)
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(stores[n % 2].put, rows[start : start + 10]) for n in range(4) for start in range(0, 40, 10)
        ]
        for job in jobs:
            job.result()
    assert len(stores[0].search("acme", pointing(0), 100)) == 40
    for store in stores:
        store.close()


def test_vectors_of_another_model_are_not_searched(url: str) -> None:
    """They would be compared, and the answers be nonsense."""
    open_store(url).close()
    if url.startswith("sqlite:"):
        apsw.Connection(url.removeprefix("sqlite:")).execute("UPDATE about SET value = 'other'")
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE rag_about SET value = 'other'")
    with pytest.raises(StoreFailed, match="has the vectors of other"):
        open_store(url)


def test_a_server_that_was_away_is_found_again(postgres: Postgres) -> None:
    """The call that met the broken connection fails, and is tried again by its job; the next one makes another."""
    store = open_store(emptied(postgres))
    stored(store, "away")
    postgres.stop()
    with pytest.raises(psycopg.OperationalError):
        store.search("away", pointing(0), 5)
    with pytest.raises(StoreFailed, match="cannot be used as a store of passages"):
        open_store(postgres.url)
    postgres.start()
    assert len(store.search("away", pointing(0), 5)) == 2
    store.close()


@pytest.mark.parametrize("url", ["passages.db", "sqlite:", "mysql://db", "sqlite:/nowhere/at/all/passages.db"])
def test_a_url_that_leads_nowhere_is_told(url: str) -> None:
    """At the start, and not by the first question."""
    with pytest.raises(StoreFailed):
        open_store(url)

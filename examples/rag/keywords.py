"""Plain keyword search, to see what vectors are worth beside it: BM25 as SQLite's FTS5 has it, with its stemmer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import apsw

from examples.rag.documents import Passage

__all__ = ["Keywords", "mixed"]

RANK_OFFSET = 60  # reciprocal rank fusion: Cormack, Clarke, Büttcher, SIGIR 2009


class Keywords:
    """An index of passages, in memory."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._db = apsw.Connection(":memory:")
        self._db.execute("CREATE VIRTUAL TABLE words USING fts5(title, text, tokenize = 'porter unicode61')")
        rows = [(n, passage.title, passage.text) for n, passage in enumerate(passages)]
        self._db.executemany("INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", rows)

    def search(self, question: str, limit: int) -> list[int]:
        """The places of the passages that share most with the question, best first; any word will do."""
        wanted = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question))
        if not wanted:
            return []
        rows = self._db.execute("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?", (wanted, limit))
        return [row[0] for row in rows]


def mixed(rankings: Sequence[Sequence[int]]) -> list[int]:
    """Several rankings as one, by reciprocal ranks."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, place in enumerate(ranking):
            scores[place] = scores.get(place, 0.0) + 1 / (RANK_OFFSET + rank + 1)
    return sorted(scores, key=lambda place: -scores[place])

"""The RAG example's parts: how documents are read and split, what is searched by words, and how it is all scored."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import jsonschema_rs
import pytest
from examples.rag.documents import (
    LARGEST_BYTES,
    PASSAGE_WORDS,
    Document,
    FolderUnknown,
    folder_within,
    passages_of,
    read_folder,
)
from examples.rag.evaluate import Score, ranks, score_of, table
from examples.rag.here import shipped_passages, shipped_questions
from examples.rag.keywords import Keywords, mixed
from examples.rag.load import Rate, Row
from examples.rag.load import table as load_table
from examples.rag.prompt import question_for, source_of
from examples.rag.settings import SHIPPED, RagSettings
from examples.rag.store import Hit
from examples.rag.store.base import DIMENSIONS, floats, packed
from ruamel.yaml import YAML


def text(content: str, name: str = "a/ropes.md") -> Document:
    return Document(name, "", content)


def test_a_paragraph_is_a_passage_below_its_heading() -> None:
    """Without a heading the title is the file's name; lines and spaces are of no account."""
    passages = passages_of(text("First one.\nSecond\n one!\n\n## Towers\n\nThird?  Fourth; fifth.\n\n  \n\nSixth"))
    assert [(one.n, one.title, one.sentences) for one in passages] == [
        (0, "ropes", ("First one.", "Second one!")),
        (1, "Towers", ("Third?", "Fourth;", "fifth.")),
        (2, "Towers", ("Sixth",)),
    ]
    assert passages[0].text == "First one. Second one!"


def test_a_long_paragraph_is_several_passages() -> None:
    """Each of whole sentences; one sentence that is too long by itself stays whole."""
    sentence = " ".join(["word"] * 30) + "."
    passages = passages_of(text(" ".join([sentence] * 7)))
    assert [len(one.sentences) for one in passages] == [PASSAGE_WORDS // 30, PASSAGE_WORDS // 30, 1]
    (whole,) = passages_of(text(" ".join(["word"] * 500)))
    assert len(whole.text.split()) == 500


def test_a_passage_is_known_again_by_its_id() -> None:
    """It follows from what it says and where: a change before it leaves it as it is, unless it moves it."""
    before = passages_of(text("One.\n\nTwo.\n\nThree."))
    after = passages_of(text("One!\n\nTwo.\n\nThree."))
    assert [a.id == b.id for a, b in zip(before, after, strict=True)] == [False, True, True]
    assert passages_of(text("One.", "b.md"))[0].id != before[0].id
    twice = passages_of(text("Same.\n\nSame."))
    assert twice[0].id != twice[1].id


def test_what_is_too_large_is_refused(tmp_path: Path) -> None:
    """And told, with the others."""
    (tmp_path / "large.txt").write_bytes(b"a" * (LARGEST_BYTES + 1))
    (tmp_path / "small.TXT").write_text("a")
    found = read_folder(tmp_path, ".")
    assert [one.name for one in found.documents] == ["small.TXT"]
    assert [one.document for one in found.refused] == ["large.txt"]


def test_a_folder_lies_within_the_documents(tmp_path: Path) -> None:
    """However it is written."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name, found in ((".", "."), ("a", "a"), ("a/b/..", "a"), ("./a/b/", "a/b"), (str(tmp_path / "a"), "a")):
        assert folder_within(tmp_path, name) == found
    with pytest.raises(FolderUnknown):
        folder_within(tmp_path / "a", "../a/..")


def test_each_question_of_ours_has_one_right_passage() -> None:
    """And its answer stands there."""
    passages = shipped_passages()
    assert len(passages) == 48
    questions = shipped_questions()
    assert len({one.question for one in questions}) == len(questions) == 53
    for question in questions:
        if question.document is not None:
            (right,) = [one for one in passages if one.document == question.document and question.passage in one.text]
            assert question.answer.lower() in right.text.lower(), question
    assert {one.document for one in questions if one.document} == {path.name for path in SHIPPED.glob("*.md")}


def test_keywords_find_what_shares_them() -> None:
    """By their stems; what is no word, quotes and signs of a query language among it, finds nothing."""
    index = Keywords(passages_of(text("The rope is tested yearly.\n\nTowers stand still.\n\nTickets cost money.")))
    assert index.search("Who tests the ropes?", 3)[0] == 0
    assert index.search('tower" OR NOT (', 3) == [1]
    assert index.search("?!", 3) == []


def test_rankings_are_mixed_by_their_ranks() -> None:
    """What both have comes before what one has."""
    assert mixed([[1, 2], [2, 3]])[0] == 2
    assert set(mixed([[1, 2], [2, 3]])) == {1, 2, 3}
    assert mixed([[], []]) == []


def test_ranks_come_to_figures() -> None:
    """First, third, fourth, not at all."""
    found = ranks([[7, 8], [1, 2, 7], [1, 2, 3, 7], [1]], [7, 7, 7, 7])
    assert found == [0, 2, 3, None]
    assert score_of(found) == Score(0.25, 0.5, (1 + 1 / 3 + 1 / 4) / 4)
    assert "| vectors | 0.250 | 0.500 | 0.396 |" in table({"vectors": score_of(found)})


def test_a_measured_row_is_told_beside_the_first() -> None:
    """How many times less CPU it takes."""
    one, many = Row("one", Rate(50, 20, 1), Rate(10, 90, 1)), Row("many", Rate(125, 8, 30), Rate(12, 60, 20))
    told = load_table([one, many]).splitlines()
    assert told[-1] == "| many | 125.0 | 8.0 | 30.0 | 2.5 x | 12.0 | 60.0 | 20.0 | 1.5 x |"


def test_vectors_are_packed_as_floats() -> None:
    """And come back as they were, as near as four bytes are."""
    vectors = [[n / 7] * DIMENSIONS for n in range(3)]
    assert [list(one) for one in floats(packed(vectors))] == [pytest.approx(one) for one in vectors]
    assert floats(b"") == []


def test_the_local_model_is_shown_how_and_given_little() -> None:
    """Two examples, then the quote of the best passage; an upstream is given all passages whole, and a rule."""
    near, far = [1.0] + [0.0] * (DIMENSIONS - 1), [0.0] * (DIMENSIONS - 1) + [1.0]
    hit = Hit("a.md", "Ropes", ("Far.", "Near.", "Far too."), 0.9, packed([far, near, far]))
    source = source_of("What is near?", near, hit)
    assert (source.quote, source.text) == ("Far. Near.", "Far. Near. Far too.")
    assert source_of("What is E-417?", near, hit).quote == source.quote
    coded = Hit("a.md", "Codes", ("E-417: far.", "Near.", "Near too."), 0.9, packed([far, near, near]))
    assert source_of("What is E-417?", near, coded).quote == "E-417: far. Near."
    asked = question_for(RagSettings(), "What is\nnear?", [source])
    assert [turn["role"] for turn in asked.messages] == ["user", "assistant", "user", "assistant", "user"]
    assert asked.messages[-1]["content"] == "Passage: Far. Near.\nQuestion: What is near?"
    asked = question_for(RagSettings(upstream="https://api.example.com/v1", model="large"), "What?", [source, source])
    assert asked.messages[-1]["content"].startswith("[1] Ropes: Far. Near. Far too.\n\n[2] Ropes: ")
    assert (asked.model, asked.stop) == ("large", [])


def test_compose_takes_the_file() -> None:
    """It is valid by the Compose specification's own schema, and listens on this host's loopback alone."""
    whole = YAML(typ="safe", pure=True).load(SHIPPED.with_name("compose.yaml").read_text())
    schema = json.loads(files("check_jsonschema.builtin_schemas.vendor").joinpath("compose-spec.json").read_bytes())
    assert [str(error) for error in jsonschema_rs.validator_for(schema).iter_errors(whole)] == []
    ports = [port for service in whole["services"].values() for port in service["ports"]]
    assert [port.split(":")[0] for port in ports] == ["127.0.0.1"] * 2

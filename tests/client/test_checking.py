"""Inputs in which outputs and files stand, against an announced schema: what is known of them is checked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ropeway.client.checking import SchemaCheck
from ropeway.domain.errors import InputInvalid
from ropeway.domain.worker import TaskCard

PAGE = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["text", "n"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "minLength": 3},
        "n": {"type": "integer"},
        "image": {"type": "string"},
        "pages": {"type": "array", "items": {"$ref": "#/$defs/Page"}, "uniqueItems": True, "maxItems": 3},
        "maybe": {"anyOf": [{"$ref": "#/$defs/Page"}, {"type": "null"}]},
        "either": {"oneOf": [{"$ref": "#/$defs/Page"}, {"type": "object", "required": ["kind"]}]},
        "by_name": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Page"}},
        "odd~/name": {"type": "string"},
    },
    "required": ["n"],
    "additionalProperties": False,
    "$defs": {"Page": PAGE},
}
CHECK = SchemaCheck(TaskCard("t", input_schema=json.dumps(SCHEMA)))
OUT = {"$output": "job_1"}
FILE = {"$file": "file_" + "0" * 32}


@pytest.mark.parametrize(
    "value",
    [
        OUT,
        {"n": OUT},
        {"n": 1, "text": OUT, "pages": OUT, "maybe": OUT, "either": OUT, "by_name": OUT, "odd~/name": OUT},
        {"n": 1, "pages": [OUT, {"text": OUT, "n": OUT}]},
        {"n": 1, "pages": [OUT, OUT]},
        {"n": 1, "maybe": {"text": OUT, "n": 1}},
        {"n": 1, "either": {"text": OUT, "n": 1}},
        {"n": 1, "by_name": {"a": {"text": OUT, "n": 1}, "b": OUT}},
        {"n": 1, "text": OUT, "image": FILE},
    ],
    ids=range(9),
)
def test_what_an_output_stands_for_is_left_to_the_worker(value: Any) -> None:
    """At its place, within it, and above it where the whole depends on it (an alternative, items that are unique)."""
    CHECK.check(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("value", "pointers"),
    [
        ({"text": OUT}, {"/n"}),
        ({"n": "x", "text": OUT}, {"/n"}),
        ({"n": 1, "text": OUT, "more": 2}, {"/more"}),
        ({"n": 1, "more": OUT}, {"/more"}),
        ({"n": 1, "text": [OUT]}, {"/text"}),
        ({"n": 1, "text": {**OUT, "more": 1}}, {"/text"}),
        ({"n": 1, "text": {"$output": 5}}, {"/text"}),
        ({"n": 1, "pages": [{"text": OUT}]}, {"/pages/0/n"}),
        ({"n": 1, "pages": [{"text": OUT, "n": "x"}, {"text": 1, "n": OUT}]}, {"/pages/0/n", "/pages/1/text"}),
        ({"n": 1, "pages": [OUT] * 4}, {"/pages"}),
        ({"n": 1, "maybe": {"text": OUT, "n": "x"}}, {"/maybe/n"}),
        ({"n": 1, "maybe": [OUT]}, {"/maybe"}),
        ({"n": 1, "by_name": {"a": {"text": OUT, "n": 1, "more": 1}}}, {"/by_name/a/more"}),
        ({"n": 1, "odd~/name": [OUT]}, {"/odd~0~1name"}),
        ({"n": "x", "text": OUT, "image": FILE}, {"/n"}),
        ([OUT], {""}),
    ],
    ids=range(16),
)
def test_what_is_known_counts(value: Any, pointers: set[str]) -> None:
    """Members beside it, members that are missing, or of no name, and what is of the wrong kind whatever is in it."""
    with pytest.raises(InputInvalid) as caught:
        CHECK.check(json.dumps(value).encode())
    assert {fault.pointer for fault in caught.value.faults} == pointers


def test_outputs_by_the_ten_thousand_are_no_work() -> None:
    """Deep down and side by side, with as many faults beside them: each fault is judged by its own place alone."""
    deep: Any = [OUT] * 20_000
    for _ in range(40):
        deep = [deep]
    wrong = {f"f{n}": n for n in range(20_000)}
    faults = CHECK.faults(json.dumps({"pages": deep, **wrong}).encode())
    assert len(faults) == 20

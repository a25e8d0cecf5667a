"""Inputs and outputs: validated by the task's own types, published as JSON Schema, faults told as JSON pointers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
import msgspec
import pydantic
import pytest

from ropeway.client.reference import Output
from ropeway.domain.errors import InputInvalid
from ropeway.runtime import App, Context, Task, given


class Colour(StrEnum):
    red = "red"
    blue = "blue"


@dataclass
class Point:
    x: int
    y: int = 0


class Shape(msgspec.Struct):
    corners: list[Point]
    colour: Colour = Colour.red


class Message(pydantic.BaseModel):
    role: Literal["user", "assistant"]
    content: str


class Answer(pydantic.BaseModel):
    text: str
    at: datetime


app = App()


@app.task
async def draw(shapes: dict[str, Shape], scale: float = 1.0, tags: list[str] = ["new"], *, ctx: Context = given) -> int:  # noqa: B006
    return len(shapes)


@app.task
async def chat(
    messages: list[Message], top: Annotated[int, pydantic.Field(gt=0)] = 1, a: Message | None = None
) -> Answer:
    return Answer(text=messages[0].content, at=datetime(2024, 1, 1))


@app.task
async def anything(value: Any, path: Path = Path("here")) -> Any:
    return value


@app.task
async def words(n: int) -> AsyncIterator[str]:
    for i in range(n):
        yield f"{i} "


@app.task
def points(n: int) -> Iterator[Point]:
    for i in range(n):
        yield Point(i)


def faults(task: Task[..., Any, Any], raw: str | bytes) -> list[tuple[str, str]]:
    """The faults that `check` finds in an input."""
    with pytest.raises(InputInvalid) as caught:
        task.check(raw)
    return [(fault.pointer, fault.detail) for fault in caught.value.faults]


def test_pydantic_is_not_loaded_for_those_who_do_not_use_it() -> None:
    """Its import costs more than the whole worker: only an application that has it already gets it."""
    script = (
        "import sys\n"
        "from ropeway.runtime import App\n"
        "app = App()\n"
        "@app.task\n"
        "async def work(a: int, b: dict[str, list[float]] = {}) -> list[int]: ...\n"
        "print(work.bind(1), 'pydantic' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['{"a":1}', "False"]


# -- bind


def test_a_call_is_bound_as_python_would_bind_it() -> None:
    """By position and by name; what is left out is the function's own business, also after it changes its default."""
    assert (
        draw.bind({"a": Shape([Point(1)])}, 2.5)
        == '{"shapes":{"a":{"corners":[{"x":1,"y":0}],"colour":"red"}},"scale":2.5}'
    )
    assert draw.bind(shapes={}, tags=["x"]) == '{"shapes":{},"tags":["x"]}'
    assert draw.bind({}) == '{"shapes":{}}'


def test_models_are_bound_too() -> None:
    """Pydantic models go as their own JSON."""
    assert chat.bind([Message(role="user", content="hi")]) == '{"messages":[{"role":"user","content":"hi"}]}'


def test_paths_are_strings_in_json() -> None:
    """A path is bound and read as text."""
    raw = anything.bind(None, Path("/a/b"))
    assert raw == '{"value":null,"path":"/a/b"}'
    assert anything.input.decode(raw)["path"] == Path("/a/b")


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        (({}, 1.0, [], 4), {}, ("", "takes at most 3 positional arguments, got 4")),
        (({},), {"shapes": {}}, ("/shapes", "given twice")),
        (({},), {"ctx": 1}, ("/ctx", "unknown field")),
        ((), {}, ("", "Object missing required field 'shapes'")),
        (({"a": Shape([])}, "big"), {}, ("/scale", "Expected 'float', got 'str'")),
        (({}, float("nan")), {}, ("/scale", "Expected 'float', got 'null'")),
        (({"a": object()},), {}, ("/shapes", "JSON cannot carry object")),
        (({}, 1.0, ["\ud800"]), {}, ("/tags", None)),
    ],
)
def test_a_call_that_does_not_fit_is_refused_before_it_is_sent(
    args: tuple[Any, ...], kwargs: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    """The client hears it as the worker would have, with a pointer to the argument."""
    untyped: Task[..., Any, Any] = draw
    with pytest.raises(InputInvalid, match="does not fit task 'draw'") as caught:
        untyped.bind(*args, **kwargs)
    fault = caught.value.faults[0]
    assert fault.pointer == expected[0]
    assert expected[1] in (fault.detail, None)


# -- check


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"shapes":{},"scal":1}', ("/scal", "unknown field")),
        ('{"shapes":{"a":{"corners":[{"x":"1"}]}}}', ("/shapes", "Expected 'int', got 'str'")),
        ('{"shapes":{},"tags":["a",2]}', ("/tags/1", "Expected 'str', got 'int'")),
        ('{"shapes":[]}', ("/shapes", "Expected 'object', got 'array'")),
        ("[]", ("", "Expected 'object', got 'array'")),
        ('{"shapes":', ("", "not JSON: Input data was truncated")),
        ('{"shapes":{},"scale":NaN}', ("", "not JSON: JSON is malformed: invalid character (byte 21)")),
        ('{"shapes":{},"scale":1e999}', ("/scale", "Number out of range")),
        (b'{"shapes":{},"tags":["\xff"]}', None),
        ('{"shapes":{},"tags":["\ud800"]}', None),
        ("[" * 100_000, None),
        ('{"shapes":' + '{"a":' * 100_000, None),
        ("", ("", "not JSON: Input data was truncated")),
    ],
    ids=range(13),
)
def test_bad_json_is_told_by_pointer(raw: str | bytes, expected: tuple[str, str] | None) -> None:
    """Whatever arrives, it is InputInvalid with a place: never another exception."""
    found = faults(draw, raw)
    assert expected in (found[0], None)


def test_every_fault_in_models_is_told() -> None:
    """Pydantic finds them all; each has its pointer from the top of the input."""
    found = faults(chat, '{"messages":[{"role":"user"},{"role":"dog","content":""}],"top":0,"a":3}')
    assert [pointer for pointer, _ in found] == ["/messages/0", "/messages/1/role", "/top", "/a"]
    assert found[0][1] == "missing required field 'content'"


def test_pointers_are_escaped() -> None:
    """A `/` or `~` in a field's name is not taken for a step (RFC 6901)."""
    assert faults(draw, '{"shapes":{},"a/b~c":1}') == [("/a~1b~0c", "unknown field")]


# -- outputs that are not there yet

OUT: Any = Output("job_1")


@pytest.mark.parametrize(
    ("task", "kwargs", "raw"),
    [
        (chat, {"messages": OUT}, '{"messages":{"$output":"job_1"}}'),
        (
            chat,
            {"messages": [], "top": OUT, "a": OUT},
            '{"messages":[],"top":{"$output":"job_1"},"a":{"$output":"job_1"}}',
        ),
        (
            chat,
            {"messages": [OUT, Message(role="user", content="hi")]},
            '{"messages":[{"$output":"job_1"},{"role":"user","content":"hi"}]}',
        ),
        (
            draw,
            {"shapes": {"a": OUT, "b": Shape([OUT])}},
            '{"shapes":{"a":{"$output":"job_1"},"b":{"corners":[{"$output":"job_1"}],"colour":"red"}}}',
        ),
        (
            draw,
            {"shapes": {"a": Shape([Point(OUT)])}, "scale": OUT},
            '{"shapes":{"a":{"corners":[{"x":{"$output":"job_1"},"y":0}],"colour":"red"}},"scale":{"$output":"job_1"}}',
        ),
        (anything, {"value": [{"a": OUT}]}, '{"value":[{"a":{"$output":"job_1"}}]}'),
    ],
    ids=range(6),
)
def test_an_output_may_stand_anywhere_in_a_call(task: Task[..., Any, Any], kwargs: dict[str, Any], raw: str) -> None:
    """For a whole argument of any type, in lists and dictionaries, in dataclasses and structs."""
    assert task.bind(**kwargs) == raw
    task.check(raw)


@pytest.mark.parametrize(
    ("task", "raw", "pointers"),
    [
        (chat, '{"messages":OUT,"top":0}', ["/top"]),
        (chat, '{"top":OUT}', [""]),
        (chat, '{"messages":OUT,"more":1}', ["/more"]),
        (chat, '{"messages":[],"more":OUT}', ["/more"]),
        (chat, '{"messages":[{"role":"user","content":OUT},{"role":"dog","content":OUT}]}', ["/messages/1/role"]),
        (chat, '{"messages":[OUT,{"role":"user"}],"a":{"content":OUT}}', ["/messages/1/content", "/a/role"]),
        (draw, '{"shapes":[OUT]}', ["/shapes"]),
        (draw, '{"shapes":{"a":{"corners":[OUT,{"x":"1"}]}}}', ["/shapes/a/corners/1/x"]),
        (draw, '{"shapes":OUT,"scale":"big","tags":[OUT,1]}', ["/scale"]),
        (draw, '{"shapes":OUT,"tags":[OUT,1]}', ["/tags/1"]),
        (draw, "[OUT]", [""]),
    ],
    ids=range(11),
)
def test_what_is_known_beside_an_output_is_checked(task: Task[..., Any, Any], raw: str, pointers: list[str]) -> None:
    """Arguments without one by their own types; those with one inside by the schema, all but what it stands for."""
    assert [pointer for pointer, _ in faults(task, raw.replace("OUT", '{"$output":"job_1"}'))] == pointers


def test_an_output_and_a_file_stand_side_by_side() -> None:
    """Each for what it stands for, and the rest is checked."""
    file = '{"$file":"file_' + "0" * 32 + '"}'
    chat.check(f'{{"messages":{file},"a":{{"$output":"job_1"}}}}')
    found = faults(chat, f'{{"messages":{file},"a":{{"$output":"job_1"}},"top":0}}')
    assert [pointer for pointer, _ in found] == ["/top"]


def test_a_whole_input_may_be_an_output() -> None:
    """Of one who sends JSON; nothing is known of it yet."""
    draw.check('{"$output":"job_1"}')


def test_a_schema_that_no_gateway_can_read_leaves_the_check_to_the_worker() -> None:
    """A pattern of Python's own: what stands beside an output is then not known to be wrong."""
    odd = App()

    @odd.task
    async def match(texts: list[Annotated[str, msgspec.Meta(pattern="(?(1)a|b)(x)")]], n: int = 1) -> None: ...

    match.check('{"texts":[{"$output":"job_1"},5]}')
    assert [pointer for pointer, _ in faults(match, '{"texts":[{"$output":"job_1"}],"n":"x"}')] == ["/n"]


def test_an_output_too_deep_down_is_told_as_any_input_that_is() -> None:
    """Never another exception than InputInvalid."""
    for depth in (300, 900, 5_000, 100_000):
        raw = '{"value":' + "[" * depth + '{"$output":"job_1"}' + "]" * depth + "}"
        try:
            anything.check(raw)
        except InputInvalid as error:
            assert "deep" in str(error)


# -- what the function gets


def test_arguments_arrive_as_the_annotated_types() -> None:
    """Structs, dataclasses, enums and models, not dictionaries; left-out arguments are the function's defaults."""
    arguments = draw.input.decode('{"shapes":{"a":{"corners":[{"x":1}],"colour":"blue"}}}')
    assert arguments == {"shapes": {"a": Shape([Point(1)], Colour.blue)}, "scale": 1.0, "tags": ["new"]}
    read = chat.input.decode('{"messages":[{"role":"user","content":"hi"}]}')
    assert read["messages"] == [Message(role="user", content="hi")]
    assert "a" not in read


# -- schemas


@pytest.mark.parametrize("task", [draw, chat, anything, words], ids=lambda task: task.name)
def test_input_schemas_are_valid_json_schema(task: Task[..., Any, Any]) -> None:
    """Draft 2020-12, self-contained: every reference is under its own `$defs`."""
    schema = json.loads(task.card.input_schema)
    jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    jsonschema_rs.Draft202012Validator(schema)


def test_a_gateway_can_judge_by_the_schema_alone() -> None:
    """The schema accepts and refuses what the types do."""
    judge = jsonschema_rs.Draft202012Validator(json.loads(chat.card.input_schema))
    assert judge.is_valid({"messages": [{"role": "user", "content": "hi"}], "top": 2})
    assert not judge.is_valid({"messages": [{"role": "dog", "content": "hi"}]})
    assert not judge.is_valid({"messages": [], "top": 0})
    assert not judge.is_valid({"messages": [], "more": 1})
    assert not judge.is_valid({})


def test_the_schema_tells_defaults() -> None:
    """A form can be filled from it."""
    properties = json.loads(draw.card.input_schema)["properties"]
    assert (properties["scale"]["default"], properties["tags"]["default"]) == (1.0, ["new"])
    assert "default" not in properties["shapes"]


def test_two_types_of_one_name_are_kept_apart() -> None:
    """A dataclass and a model of the same name have a definition each."""
    other = pydantic.create_model("Point", z=(str, ...))
    both = App()

    @both.task
    async def mix(a: Point, b: other) -> None: ...  # type: ignore[valid-type]

    judge = jsonschema_rs.Draft202012Validator(json.loads(mix.card.input_schema))
    assert judge.is_valid({"a": {"x": 1}, "b": {"z": "s"}})
    assert not judge.is_valid({"a": {"z": "s"}, "b": {"z": "s"}})
    assert not judge.is_valid({"a": {"x": 1}, "b": {"x": 1}})


def test_output_schemas_tell_what_comes_out() -> None:
    """The return type; for a generator, the type of one item."""
    assert json.loads(draw.card.output_schema) == {"type": "integer"}
    assert json.loads(words.card.output_schema) == {"type": "string"}
    assert json.loads(points.card.output_schema)["$ref"] == "#/$defs/Point"
    assert list(json.loads(chat.card.output_schema)["$defs"]["Answer"]["properties"]) == ["text", "at"]
    assert json.loads(anything.card.output_schema) == {}


# -- outputs


def test_outputs_are_read_as_what_the_task_declares() -> None:
    """The client gets the return type back; a generator's strings as one, its other items as a list."""
    assert draw.decode_output("3") == 3
    assert chat.decode_output('{"text":"hi","at":"2024-01-01T00:00:00"}') == Answer(text="hi", at=datetime(2024, 1, 1))
    assert words.decode_output('"0 1 "') == "0 1 "
    assert points.decode_output('[{"x":1},{"x":2}]') == [Point(1), Point(2)]
    assert anything.decode_output('{"a":[1]}') == {"a": [1]}

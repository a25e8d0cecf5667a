"""Declaring batch tasks: the function takes lists, and all that callers see is of one job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from ropeway import DONE, NOTHING, Batch, InputInvalid, ModelCard, Step, Task
from ropeway.domain.chat import EmbeddingRequest
from ropeway.runtime import App, Context, given


class Request(msgspec.Struct):
    text: str
    language: str = "en"


def declared(fn: Callable[..., Any], batch: Batch | None = None, **settings: Any) -> Task[..., Any, Any]:
    return App().task(batch=batch or Batch(), **settings)(fn)


def test_callers_see_the_task_of_one_item() -> None:
    """The schemas are those of an item; the plain call is the function as it stands."""

    def measure(text: list[str], request: list[Request]) -> list[int]:
        return [len(each) for each in text]

    task = declared(measure)
    schema = msgspec.json.decode(task.card.input_schema)
    assert schema["properties"]["text"] == {"type": "string"}
    assert msgspec.json.decode(task.card.output_schema) == {"type": "integer"}
    assert task.bind("a", Request("b")) == '{"text":"a","request":{"text":"b","language":"en"}}'
    assert task.decode_output("3") == 3
    assert task(["abc", "d"], []) == [3, 1]
    with pytest.raises(InputInvalid):
        task.bind(["a"], Request("b"))


def test_an_exception_in_a_place_is_no_part_of_the_output() -> None:
    """`list[int | ValueError]` comes to an int."""

    def risky(n: list[int]) -> list[int | ValueError | KeyError]:
        return [*n]

    assert msgspec.json.decode(declared(risky).card.output_schema) == {"type": "integer"}


@pytest.mark.parametrize("form", ["async", "blocking"])
def test_a_stream_comes_to_what_its_items_are(form: str) -> None:
    """Steps of strings come to a text, of anything else to a list; what stands for no item is left out."""

    def blocking(prompt: list[str]) -> Iterator[Step[str]]:
        yield [NOTHING, DONE]

    async def on_loop(prompt: list[str]) -> AsyncIterator[list[int | None]]:
        yield [1, None]

    text, numbers = declared(blocking), declared(on_loop)
    assert (text.streams, text.decode_output('"ab"')) == (True, "ab")
    assert numbers.decode_output("[1,null]") == [1, None]


def test_every_kind_of_list_will_do() -> None:
    """Sequence, or no annotation at all: then anything is taken."""

    def sequence(n: Sequence[int], anything, plain: list) -> Sequence[int]:  # type: ignore[no-untyped-def,type-arg]
        return n

    task = declared(sequence)
    assert task.bind(1, {"a": 1}, None) == '{"n":1,"anything":{"a":1},"plain":null}'


def test_contexts_come_as_a_list() -> None:
    """By the name `ctxs`, or by their type; what type checkers alone import is known by its name."""

    def by_name(n: list[int], *, ctxs=given) -> list[int]:  # type: ignore[no-untyped-def]
        return n

    def by_type(n: list[int], *, jobs: list[Context] = given) -> list[int]:
        return n

    assert (declared(by_name).context_name, declared(by_type).context_name) == ("ctxs", "jobs")


def test_a_batch_of_embedding_requests_can_serve_the_openai_routes() -> None:
    """What a model's task is checked for is the signature of one job."""

    def embed(request: list[EmbeddingRequest]) -> list[list[list[float]]]:
        return [[[0.0]] for _ in request]

    task = declared(embed, models=[ModelCard("mini", "embedding")])
    assert task.card.models[0].id == "mini"


def wrong(fn: Callable[..., Any], **settings: Any) -> str:
    """What is said of a function that cannot be a batch task."""
    with pytest.raises(TypeError) as refused:
        declared(fn, **settings)
    return str(refused.value)


def test_a_function_that_takes_no_lists_is_refused() -> None:
    """The message says which parameter, and how to write it."""

    def single(text: str) -> list[int]:
        return [1]

    def nothing() -> list[int]:
        return []

    assert "'text'" in wrong(single)
    assert "list with one item for each job" in wrong(single)
    assert "takes no input" in wrong(nothing)


def test_a_default_is_refused() -> None:
    """A list for many jobs has none; a struct of each job may."""

    def defaulted(text: list[str] = []) -> list[int]:  # noqa: B006 - that is the point
        return [1]

    assert "has a default" in wrong(defaulted)


def test_a_single_context_is_refused() -> None:
    """There is one for each job."""

    def one(text: list[str], *, ctx: Context = given) -> list[int]:
        return [1]

    def typed(text: list[str], *, job: Context = given) -> list[int]:
        return [1]

    assert "ctxs: list[Context]" in wrong(one)
    assert "ctxs: list[Context]" in wrong(typed)


def test_a_function_that_returns_no_list_is_refused() -> None:
    """One result would be nobody's."""

    def one(text: list[str]) -> str:
        return ""

    def stream(text: list[str]) -> Iterator[str]:
        yield ""

    assert "returns" in wrong(one)
    assert "yields" in wrong(stream)


def test_a_key_and_a_cost_must_fit_the_input() -> None:
    """A parameter's name that is there; a function that takes what there is."""

    def work(text: list[str], n: list[int]) -> list[int]:
        return n

    assert "'lang' is no input" in wrong(work, batch=Batch(key="lang"))
    assert "takes size" in wrong(work, batch=Batch(key=lambda size: size))
    assert "not 5" in wrong(work, batch=Batch(max_cost=3, cost=5))  # type: ignore[arg-type]
    assert "batch is given as Batch" in wrong(work, batch=64)


def test_functions_for_key_and_cost_take_what_they_name() -> None:
    """Some parameters by their names; all in order; or the only one, for a function such as `len`."""

    def work(text: list[str], n: list[int]) -> list[int]:
        return n

    def alone(text: list[str]) -> list[int]:
        return []

    read = declared(work, Batch(max_cost=9, cost=lambda n: n, key=lambda a, b: (a, b))).batching
    length = declared(alone, Batch(key=len)).batching
    assert read is not None and length is not None and read.cost and read.key and length.key
    assert (read.cost({"text": "abc", "n": 5}), read.key({"text": "abc", "n": 5})) == (5, ("abc", 5))
    assert length.key({"text": "abc"}) == 3


@pytest.mark.parametrize(
    "settings",
    [{"max_size": 0}, {"max_wait": -1}, {"max_wait": float("inf")}, {"max_cost": 0}, {"cost": len}],
)
def test_a_batch_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    """With what is wrong, in one line."""
    with pytest.raises(ValueError, match="a batch's"):
        Batch(**settings)


def test_only_declared_with_settings_can_a_task_be_a_batch() -> None:
    """The names of the settings are told to who mistypes one."""
    with pytest.raises(TypeError, match="batch"):
        App().task(bach=Batch())  # type: ignore[call-overload]

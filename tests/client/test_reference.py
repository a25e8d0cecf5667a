"""What stands for an output that is not there yet."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import pytest

from ropeway.client import Client
from ropeway.client.encoding import encode_input
from ropeway.client.reference import NotKnownYet, Output
from ropeway.engines.memory import MemoryEngine
from ropeway.runtime import App
from ropeway.runtime.coding import encode

OUTPUT: Any = Output("job_1")
TEXT = '{"$output":"job_1"}'


@dataclass
class Page:
    text: str
    number: int = 1


class Book(msgspec.Struct):
    pages: list[Page]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (OUTPUT, TEXT),
        ([1, OUTPUT], f"[1,{TEXT}]"),
        ({"a": {"b": OUTPUT}}, f'{{"a":{{"b":{TEXT}}}}}'),
        (Page(OUTPUT), f'{{"text":{TEXT},"number":1}}'),
        (Book([OUTPUT, Page(OUTPUT, 2)]), f'{{"pages":[{TEXT},{{"text":{TEXT},"number":2}}]}}'),
    ],
    ids=["alone", "list", "dict", "dataclass", "struct"],
)
def test_it_is_written_as_a_reference_wherever_it_stands(value: Any, text: str) -> None:
    """By the client as by a task object: in lists, dicts, dataclasses and structs."""
    assert encode_input(value).decode() == text
    assert encode(value) == text


@pytest.mark.parametrize(
    "use",
    [
        lambda: OUTPUT.text,
        lambda: OUTPUT["text"],
        lambda: f"the page: {OUTPUT}",
        lambda: str(OUTPUT),
        lambda: "%s" % OUTPUT,  # noqa: UP031 - another way into a text
        lambda: "the page: " + OUTPUT,
        lambda: OUTPUT + 1,
        lambda: 2 * OUTPUT,
        lambda: OUTPUT > 3,
        lambda: list(OUTPUT),
        lambda: len(OUTPUT),
        lambda: "a" in OUTPUT,
        lambda: 1 if OUTPUT else 2,
        lambda: int(OUTPUT),
    ],
    ids=range(14),
)
def test_used_as_if_it_were_there_it_says_that_it_is_not(use: Callable[[], Any]) -> None:
    """In a text it would be a name in a prompt, as a condition always true: each tells what to do instead."""
    with pytest.raises(NotKnownYet, match=r"the output of job_1 is not known yet: give it to another job as it is"):
        use()


async def test_to_the_type_checker_it_is_what_the_job_returns() -> None:
    """A chain is written as the calls would be; a task that takes something else is refused by the checker."""
    app = App()

    @app.task
    async def fetch(url: str) -> Page:
        return Page(url)

    @app.task
    async def count(page: Page, pages: list[Page]) -> int:
        return page.number + len(pages)

    engine = MemoryEngine()
    await engine.open()
    async with Client(engine) as client:
        page = await client.submit(fetch, "a.org")
        number = await client.submit(count, page.output, [page.output, Page("b")])
        stands_for: int = number.output
        assert stands_for == Output(number.id)
        await client.submit(count, number.output, [])  # type: ignore[call-overload]  # a number is no page
    await engine.shut()


def test_it_is_a_value_as_others_are() -> None:
    """Copied, pickled, compared; shown in a debugger; asked for what it does not have."""
    copies = [
        copy.copy(OUTPUT),
        copy.deepcopy(OUTPUT),
        pickle.loads(pickle.dumps(OUTPUT)),
        asdict(Page(OUTPUT))["text"],
    ]
    assert set(copies) == {OUTPUT}
    assert Output("job_2") not in copies
    assert repr(OUTPUT) == "<Output of job_1>"
    assert getattr(OUTPUT, "model_dump", None) is None
    assert not hasattr(OUTPUT, "__fspath__")

"""Typing: a submit is checked like a call. `mypy` reads this file too, and each `ignore` is an error it must find."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import pytest
from fundamentals_support import WAIT_S, running

from ropeway import App, Context, InputInvalid
from ropeway.client import JobHandle
from ropeway.runtime import given

app = App()


@app.task
async def add(a: int, b: int = 1, *, ctx: Context = given) -> int:
    return a + b


@app.task(queue="words")
async def words(n: int) -> AsyncIterator[str]:
    for i in range(n):
        yield str(i)


@app.task
async def numbers(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@app.task(timeout=5)
def length(text: str) -> int:
    return len(text)


async def test_submits_are_checked_and_results_are_typed() -> None:
    """What the worker gives is left out; a generator's result is its text, or its list."""
    async with running(app) as client:
        total = await client.submit(add, 1, b=2)
        assert_type(total, JobHandle[int])
        assert_type(await total.result(timeout=WAIT_S), int)
        assert_type(await (await client.submit(words, n=3)).result(timeout=WAIT_S), str)
        assert_type(await (await client.submit(numbers, 3)).result(timeout=WAIT_S), list[int])
        assert_type(await (await client.submit(length, "abc")).result(timeout=WAIT_S), int)


async def test_wrong_calls_are_found_by_the_type_checker_and_at_run_time() -> None:
    """The wrong type, a missing argument, one too many, one that is misspelt."""
    async with running(app) as client:
        with pytest.raises(InputInvalid):
            await client.submit(add, "1")  # type: ignore[call-overload]
        with pytest.raises(InputInvalid):
            await client.submit(add)  # type: ignore[call-overload]
        with pytest.raises(InputInvalid):
            await client.submit(length, "a", "b")  # type: ignore[call-overload]
        with pytest.raises(InputInvalid):
            await client.submit(words, m=3)  # type: ignore[call-overload]


def test_a_plain_call_has_the_function_s_own_type() -> None:
    """A task is still its function."""
    assert_type(length("abc"), int)
    assert_type(words(2), AsyncIterator[str])

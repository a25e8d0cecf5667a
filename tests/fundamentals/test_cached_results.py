"""Results used again: the same question is worked out once, however many ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fundamentals_support import WAIT_S, running

from ropeway import App, Cache

app = App()
runs: list[str] = []
may_go_on = asyncio.Event()


@app.task(cache=Cache(ttl_s=3600, version="1"))
async def reverse(text: str) -> str:
    runs.append(text)
    return text[::-1]


@app.task(cache=Cache())
async def spell(word: str) -> AsyncIterator[str]:
    runs.append(word)
    for letter in word:
        yield letter
        if letter == word[0]:
            await may_go_on.wait()


async def test_the_same_again_is_there_at_once() -> None:
    """The second submit is given the first one's job, and says so; another input is another job."""
    runs.clear()
    async with running(app) as client:
        first = await client.submit(reverse, "abc")
        assert await first.result(timeout=WAIT_S) == "cba"
        again = await client.submit(reverse, "abc")
        assert (again.id, again.cached) == (first.id, True)
        assert await again.result(timeout=WAIT_S) == "cba"
        other = await client.submit(reverse, "abd")
        assert (await other.result(timeout=WAIT_S), other.cached) == ("dba", False)
    assert runs == ["abc", "abd"]


async def test_a_job_of_ones_own() -> None:
    """Whoever wants no shared result says so."""
    runs.clear()
    async with running(app) as client:
        for _ in range(2):
            job = await client.with_options(cache=False).submit(reverse, "abc")
            assert (await job.result(timeout=WAIT_S), job.cached) == ("cba", False)
    assert runs == ["abc", "abc"]


async def test_a_stream_is_joined_from_its_start() -> None:
    """Who asks while it is under way reads all that was said before, and the rest as it comes."""
    runs.clear()
    may_go_on.clear()
    async with running(app) as client:
        first = await client.submit(spell, "word")
        deltas = (event.data["delta"] async for event in first.events() if event.type == "output.delta")
        assert await anext(deltas) == "w"
        second = await client.submit(spell, "word")
        assert (second.id, second.cached) == (first.id, True)
        may_go_on.set()
        heard = [event.data["delta"] async for event in second.events() if event.type == "output.delta"]
        assert "".join(heard) == "word"
    assert runs == ["word"]


async def test_a_crowd_asks_and_one_job_runs() -> None:
    """Two hundred who ask ten questions at once have ten jobs run."""
    runs.clear()
    async with running(app) as client:
        jobs = await asyncio.gather(*(client.submit(reverse, f"q{n % 10}") for n in range(200)))
        answers = await asyncio.gather(*(job.result(timeout=WAIT_S) for job in jobs))
        assert answers == [f"{n % 10}q" for n in range(200)]
        assert [job.cached for job in jobs].count(False) == 10
    assert sorted(runs) == [f"q{n}" for n in range(10)]

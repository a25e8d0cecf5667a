"""Calls on the OpenAI routes that share a job, or are answered with the result of one before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from openai_support import data_of, until, user, world

from ropeway.serving import GatewayOptions

PATH = "/v1/chat/completions"
SOON = GatewayOptions(departure_grace_s=0.05)


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "words", "messages": user(text), "job": {"cache": True}, **more}


def words(answer: httpx.Response) -> str:
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


async def test_a_call_is_answered_with_the_completion_of_one_before() -> None:
    """The same completion with its id, and a header that tells; what else was asked is worked out."""
    async with world() as w, httpx.AsyncClient(base_url=w.url, timeout=30) as http:
        first = await http.post(PATH, json=chat("one two"))
        again = await http.post(PATH, json=chat("one two"))
        assert (words(first), first.json()) == ("one two ", again.json())
        assert "cache-status" not in first.headers
        assert again.headers["cache-status"] == "ropeway; hit"
        assert again.headers["x-job-id"] == first.headers["x-job-id"]
        other = await http.post(PATH, json=chat("one two", temperature=0.5))
        assert other.headers["x-job-id"] != first.headers["x-job-id"]
        assert len(await w.jobs()) == 2


async def test_a_stream_is_shared_from_its_start() -> None:
    """A second caller streams all that the first one was told, while it is under way."""
    async with world() as w, httpx.AsyncClient(base_url=w.url, timeout=30) as http:
        first = asyncio.create_task(http.post(PATH, json=chat("one @go two", stream=True)))
        await until(lambda: "go" in w.gates.reached, "the task waits")
        second = asyncio.create_task(http.post(PATH, json=chat("one @go two", stream=True)))
        await until(lambda: w.gateways[0].waiting == 2, "both read")
        w.gates.open("go")
        answers = await asyncio.gather(first, second)
    chunks = [list(data_of(answer.content)) for answer in answers]
    assert chunks[0] == chunks[1]
    assert (
        "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[1] if chunk["choices"])
        == "one two "
    )
    assert answers[1].headers["cache-status"] == "ropeway; fwd=miss; collapsed"


@contextlib.asynccontextmanager
async def reader(url: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> AsyncIterator[None]:
    """Somebody who waits for an answer, and leaves at the end of this block."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        asking = asyncio.create_task(http.post(PATH, json=body, headers=headers))
        yield
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_takes_the_answer_from_nobody(stream: bool) -> None:
    """The call of one of two who left goes on for the other, and ends with the last."""
    body = chat("one @go two", stream=stream)
    async with world(options=SOON) as w, httpx.AsyncClient(base_url=w.url, timeout=30) as http:
        async with reader(w.url, body):
            await until(lambda: "go" in w.gates.reached, "the task waits")
            async with reader(w.url, body):
                await until(lambda: w.gateways[0].waiting == 2, "both read")
        job = await w.until_state("cancelled")
        assert job["joined"] == 0
        stays = asyncio.create_task(http.post(PATH, json=chat("three @on four", stream=stream)))
        await until(lambda: "on" in w.gates.reached, "the next one waits")
        async with reader(w.url, chat("three @on four", stream=stream)):
            await until(lambda: w.gateways[0].waiting == 2, "both read")
        job_id = (await w.jobs())[0]["id"]
        while (await http.get(f"/v1/jobs/{job_id}")).json()["joined"]:  # noqa: ASYNC110 - another's grace has no event
            await asyncio.sleep(0.005)
        w.gates.open("on")
        answer = await stays
        assert "four" in answer.text


async def test_who_would_not_cancel_does_not() -> None:
    """A sharer whose call is to go on anyway takes nothing from the first one when it leaves."""
    body = chat("one @go two")
    async with world(options=SOON) as w, httpx.AsyncClient(base_url=w.url, timeout=30) as http:
        stays = asyncio.create_task(http.post(PATH, json=body))
        await until(lambda: "go" in w.gates.reached, "the task waits")
        async with reader(w.url, {**body, "job": {"cache": True, "on_disconnect": "continue"}}):
            await until(lambda: w.gateways[0].waiting == 2, "both read")
        await until(lambda: w.gateways[0].waiting == 1, "one left")
        await until(lambda: not w.gateways[0]._openai._departures._waiting, "its grace is over")
        job = await w.the_job()
        assert (job["state"], job["joined"]) == ("running", 1)
        w.gates.open("go")
        assert words(await stays) == "one two "


def tried(times: int) -> dict[str, str]:
    """What an SDK says that has tried so often before."""
    return {"x-stainless-retry-count": str(times)}


async def test_an_sdks_retry_finds_the_job_that_it_shared() -> None:
    """It goes on with it, and is no sharer more."""
    async with world() as w, httpx.AsyncClient(base_url=w.url, timeout=30) as http:
        first = asyncio.create_task(http.post(PATH, json=chat("one @go two")))
        await until(lambda: "go" in w.gates.reached, "the task waits")
        second = asyncio.create_task(http.post(PATH, json=chat("one @go two"), headers=tried(0)))
        await until(lambda: w.gateways[0].waiting == 2, "both read")
        again = asyncio.create_task(http.post(PATH, json=chat("one @go two"), headers=tried(1)))
        await until(lambda: w.gateways[0].waiting == 3, "all read")
        assert (await w.the_job())["joined"] == 1
        w.gates.open("go")
        assert {words(answer) for answer in await asyncio.gather(first, second, again)} == {"one two "}


async def test_responses_are_each_ones_own() -> None:
    """A response is one caller's conversation, and shared with nobody; so is each line of a batch."""
    async with world() as w, httpx.AsyncClient(base_url=w.url, timeout=30) as http:
        body = {"model": "words", "input": "one two", "job": {"cache": True}}
        answers = [await http.post("/v1/responses", json=body) for _ in range(2)]
        assert len({answer.json()["id"] for answer in answers}) == 2

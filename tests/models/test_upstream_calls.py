"""Calls to a provider: what it is sent, what comes of its answer, and how a call is stopped."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from models_support import (
    DONE,
    KEY,
    Exchange,
    TheJob,
    Time,
    ask,
    asked,
    chunk,
    provider,
    says,
    until,
    upstream,
)

from ropeway import ChatDelta, ChatRequest, EmbeddingRequest, Fail
from ropeway.domain.errors import RetryAfter
from ropeway.models.calling import Upstream

USAGE = {"prompt_tokens": 12, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}}


async def test_an_answer_comes_in_pieces_and_what_it_took_is_told() -> None:
    """Words are plain strings; tokens are counted as the provider counts them."""
    job = TheJob()
    async with provider(says("Hel", "lo", usage=USAGE)) as on, upstream(on) as up:
        assert await ask(up, job=job) == ["Hel", "lo"]
    assert job.used == {"input_tokens": 12, "output_tokens": 2, "cached_tokens": 8}


async def test_what_the_provider_is_sent() -> None:
    """Its own name of the model, our stream settings, the key in its header, the job's id, and what was said."""
    request = asked("hi", temperature=0.5, max_tokens=7, extra={"top_k": 3, "model": "dear", "stream": False, "n": 9})
    async with provider(says("ok")) as on, upstream(on, headers={"x-team": "blue"}) as up:
        await ask(up, request)
        (call,) = on.calls
    assert call.path == "/v1/chat/completions"
    assert call.body == {
        "model": "vendor/small-1",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "max_tokens": 7,
        "top_k": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    wanted = {"authorization": f"Bearer {KEY}", "x-client-request-id": "job_1", "x-team": "blue"}
    assert {name: call.headers[name] for name in wanted} == wanted
    assert call.headers["accept-encoding"] == "identity"


async def test_what_differs_between_providers_is_an_option() -> None:
    """The name of the limit on an answer; whether counts are asked for; no key, no header."""
    options: dict[str, Any] = {"max_tokens_field": "max_completion_tokens", "stream_usage": False}
    async with provider(says("ok")) as on, upstream(on, key="", **options) as up:
        await ask(up, asked(max_tokens=7))
        (call,) = on.calls
    assert call.body["max_completion_tokens"] == 7
    assert not {"max_tokens", "stream_options"} & call.body.keys()
    assert "authorization" not in call.headers


async def test_reasoning_tools_and_an_end_for_another_reason_are_deltas() -> None:
    """What is more than words keeps its form."""
    tool = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.raw(chunk("", role="assistant") + chunk(reasoning_content="hm") + chunk("so"))
        await exchange.raw(chunk(tool_calls=[tool]) + chunk(finish="length") + DONE)

    async with provider(script) as on, upstream(on) as up:
        assert await ask(up) == [
            ChatDelta(reasoning="hm"),
            "so",
            ChatDelta(tool_calls=[tool]),
            ChatDelta(finish_reason="length"),
        ]


async def test_an_answer_may_come_in_any_chunks() -> None:
    """Events are cut anywhere by the network; comments, other fields and CRLF pass; a last DONE may be missing."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(transfer_encoding="chunked")
        whole = b": ping\r\n\r\nevent: x\r\nid: 7\r\n" + chunk("é\u2028").replace(b"\n", b"\r\n") + chunk("b", "stop")
        for byte in whole:
            await exchange.raw(b"1\r\n%c\r\n" % byte)
        await exchange.raw(b"0\r\n\r\n")

    async with provider(script) as on, upstream(on) as up:
        assert await ask(up) == ["é\u2028", "b"]


async def test_an_answer_is_over_when_its_counts_stay_away() -> None:
    """A provider that ends the answer and then holds the line is not waited for."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.raw(chunk("all", "stop"))
        await exchange.left()

    async with provider(script) as on, upstream(on, idle_s=0.05) as up:
        assert await ask(up) == ["all"]


async def test_a_model_that_is_not_served_is_the_callers_mistake() -> None:
    """It is refused here, and the provider is not asked."""
    async with provider(says("ok")) as on, upstream(on) as up:
        with pytest.raises(Fail, match="serves small, not 'big'") as refused:
            await ask(up, ChatRequest(model="big", messages=[]))
    assert refused.value.fault_code == "input_invalid"
    assert on.calls == []


async def test_a_call_that_is_stopped_hangs_up_at_once() -> None:
    """The provider sees its client leave, before the first piece and in the midst, and the place is free again."""
    left: list[str] = []

    async def silent(exchange: Exchange) -> None:
        await exchange.left()
        left.append("before")

    async def endless(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.raw(chunk("once"))
        await exchange.left()
        left.append("amidst")

    async with provider(silent, endless, says("free")) as on, upstream(on, concurrency=1) as up:
        early = asyncio.create_task(ask(up))
        await until(lambda: len(on.calls) == 1, "it is called")
        early.cancel()
        await asyncio.wait([early])
        pieces = up.chat(asked(), TheJob())
        assert await anext(pieces) == "once"
        await pieces.aclose()
        assert await ask(up) == ["free"]
        await until(lambda: left == ["before", "amidst"], "both are hung up")


async def test_no_more_calls_are_in_flight_than_are_allowed() -> None:
    """The rest wait for their turn; none fails."""
    gate = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await gate.wait()
        await says("ok")(exchange)

    async with provider(script) as on, upstream(on, concurrency=3) as up:
        calls = [asyncio.create_task(ask(up)) for _ in range(10)]
        await until(lambda: on.in_flight == 3, "three are in flight")
        gate.set()
        assert await asyncio.gather(*calls) == [["ok"]] * 10
    assert on.peak == 3


# -- embeddings


async def test_embeddings_come_in_the_order_of_their_texts() -> None:
    """Whatever order the provider sends them in."""
    job = TheJob()
    async with provider(_vectors([{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2.5]}])) as on:
        async with upstream(on) as up:
            assert await _embed(up, ["a", "b"], job) == [[1.0, 2.5], [3.0, 4.0]]
        assert on.calls[0].path == "/v1/embeddings"
        assert on.calls[0].body == {"model": "vendor/small-1", "input": ["a", "b"], "encoding_format": "float"}
    assert job.used == {"input_tokens": 5}


@pytest.mark.parametrize(
    "data",
    [
        [{"index": 0, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}],
        [{"index": 0, "embedding": [1]}, {"index": 5, "embedding": [2]}],
        [{"index": 0, "embedding": ["x"]}, {"index": 1, "embedding": [2]}],
        "nonsense",
    ],
)
async def test_embeddings_that_do_not_fit_their_texts_are_refused(data: Any) -> None:
    """Too few, twice the same, out of range, no numbers: tried again, and then the provider's fault."""
    time = Time()
    async with provider(_vectors(data)) as on, upstream(on, time) as up:
        with pytest.raises(RetryAfter) as failed:
            await _embed(up, ["a", "b"], TheJob())
    assert failed.value.fault_code == "provider_error"
    assert len(on.calls) == len(time.slept) + 1 == 4


def _vectors(data: Any) -> Any:
    async def script(exchange: Exchange) -> None:
        await exchange.head(kind="application/json")
        await exchange.raw(json.dumps({"data": data, "usage": {"prompt_tokens": 5}}).encode())

    return script


async def _embed(up: Upstream, texts: list[str], job: TheJob) -> list[list[float]]:
    return await up.embed(EmbeddingRequest(model="small", input=texts), job)

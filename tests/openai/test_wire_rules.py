"""The five rules of the wire that OpenAI's SDKs break on, and long calls: each with real bytes and real SDKs."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from openai_support import Sdk, World, data_of, each_sdk, until, user, world

from ropeway.serving import GatewayOptions
from ropeway.serving.outlet import Outlet

BEATING = GatewayOptions(heartbeat_s=0.02)


async def quiet_stream(w: World, path: str, body: dict[str, Any]) -> bytes:
    """The whole of a stream in whose middle there were heartbeats."""
    asked = {**body, "stream": True}
    async with httpx.AsyncClient(base_url=w.url) as http, http.stream("POST", path, json=asked) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        received = b""
        async for chunk in answer.aiter_raw():
            received += chunk
            if received.count(b": hb\n") >= 3:
                w.gates.open("go")
    return received


CHAT = ("/v1/chat/completions", {"model": "words", "messages": user("one @go two")})
RESPONSE = ("/v1/responses", {"model": "words", "input": "one @go two"})


@pytest.mark.parametrize("call", [CHAT, RESPONSE], ids=["chat", "response"])
async def test_rule_1_no_ids_and_no_heartbeat_that_ends_a_block(call: Any) -> None:
    """`id:` lines beside a blank-line heartbeat dispatch empty events: there are no ids, and `: hb` is one line."""
    async with world(options=BEATING) as w:
        received = await quiet_stream(w, *call)
    assert b"\nid:" not in b"\n" + received
    assert received.count(b": hb\n") >= 3
    assert b": hb\n\n" not in received
    assert all(block.startswith((b"data: ", b"event: ", b": hb\n")) for block in received.split(b"\n\n")[:-1])


@pytest.mark.parametrize("call", [CHAT, RESPONSE], ids=["chat", "response"])
async def test_rule_2_no_bare_retry(call: Any) -> None:
    """A `retry:` block without data is an empty event to the SDK: none is sent."""
    async with world(options=BEATING) as w:
        received = await quiet_stream(w, *call)
    assert b"retry:" not in received


@each_sdk
async def test_rules_1_and_2_as_the_sdk_sees_them(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats between the words of an answer: every SDK reads on."""
    beats, beat = [], Outlet.beat

    async def counted(outlet: Outlet) -> None:
        await beat(outlet)
        beats.append(outlet)

    monkeypatch.setattr(Outlet, "beat", counted)
    async with world(options=BEATING) as w:
        asked = asyncio.create_task(sdk(w.url, "chat_stream", model="words", messages=user("one @go two")))
        await until(lambda: "go" in w.gates.reached, "the task waits")
        before = len(beats)
        await until(lambda: len(beats) >= before + 3, "three heartbeats")
        w.gates.open("go")
        answer = await asked
    words = [chunk["choices"][0]["delta"].get("content") or "" for chunk in answer["events"]]
    assert "".join(words) == "one two "
    assert "error" not in answer


async def test_rule_3_nothing_but_chunks() -> None:
    """Progress, logs and usage of the task stay on the native stream: a chat's has chunks alone, and no event names."""
    async with world() as w:
        w.gates.open("go")
        received = await quiet_stream(w, *CHAT)
        job = await w.the_job()
        async with httpx.AsyncClient(base_url=w.url) as http:
            native = (await http.get(f"/v1/jobs/{job['id']}/events", headers={"accept": "text/event-stream"})).text
    assert {chunk["object"] for chunk in data_of(received)} == {"chat.completion.chunk"}
    assert b"event:" not in received
    assert "event: progress" in native
    assert "event: log" in native


@each_sdk
async def test_rule_4_a_failure_in_mid_stream(sdk: Sdk) -> None:
    """One chunk with a top-level `error`, then `[DONE]`: the SDK raises APIError, with what was said before it kept."""
    async with world() as w:
        answer = await sdk(w.url, "chat_stream", model="words", messages=user("one ! two"))
        received = await quiet_stream(w, "/v1/chat/completions", {"model": "words", "messages": user("one ! two")})
    words = [chunk["choices"][0]["delta"].get("content") for chunk in answer["events"]]
    assert words == ["one "]
    assert (answer["error"]["class"], answer["error"]["code"]) == ("APIError", "task_error")
    assert "out of words" in answer["error"]["said"]
    assert received.endswith(b'"param":null}}\n\ndata: [DONE]\n\n')


async def test_rule_5_every_error_says_whether_to_try_again() -> None:
    """`x-should-retry` is on each: those that a moment cures say so, the others do not."""
    async with world() as w, httpx.AsyncClient(base_url=w.url) as http:
        hello = {"model": "words", "messages": user("hello !")}
        failed = await http.post("/v1/chat/completions", json=hello)
        unknown = await http.post("/v1/chat/completions", json={**hello, "model": "x"})
        broken = await http.post("/v1/responses", content=b"{", headers={"content-type": "application/json"})
        form = await http.post("/v1/embeddings", content=b"a=b", headers={"content-type": "text/plain"})
        missing = await http.get("/v1/responses/resp_00")
        w.gateways[0]._watches.draining = True
        draining = await http.post("/v1/chat/completions", json=hello)
        w.gateways[0]._watches.draining = False
    told = [
        (answer.status_code, answer.headers["x-should-retry"]) for answer in (failed, unknown, broken, form, missing)
    ]
    assert told == [(500, "false"), (404, "false"), (400, "false"), (415, "false"), (404, "false")]
    assert (draining.status_code, draining.headers["x-should-retry"]) == (503, "true")
    for answer in (failed, unknown, broken, form, missing, draining):
        assert {"message", "type", "code", "param"} == answer.json()["error"].keys()
        assert answer.headers["x-request-id"]


RETRY = {"X-Stainless-Retry-Count": "1"}
FIRST = {"X-Stainless-Retry-Count": "0"}


async def test_rule_5_a_retry_goes_on_with_the_same_job() -> None:
    """By key, route and body: while the job lives, and a while after its end. A first try is always a new one."""
    hello = msgspec.json.encode({"model": "words", "messages": user("hello @go")})
    async with world(gateways=2) as w, httpx.AsyncClient(headers={"content-type": "application/json"}) as http:

        async def call(url: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
            return await http.post(f"{url}/v1/chat/completions", content=body, headers=headers)

        first = asyncio.create_task(call(w.urls[0], hello, FIRST))
        await until(lambda: "go" in w.gates.reached, "the task waits")
        again = asyncio.create_task(call(w.urls[1], hello, RETRY))
        await until(lambda: w.gateways[1].waiting == 1, "the retry waits at the other gateway")
        w.gates.open("go")
        answers = [await first, await again, await call(w.urls[1], hello, RETRY)]
        assert len({answer.headers["x-job-id"] for answer in answers}) == 1
        assert len({answer.content for answer in answers}) == 1
        assert len(await w.jobs()) == 1
        fresh = await call(w.urls[0], hello, FIRST)
        other = await call(w.urls[0], hello.replace(b"hello", b"howdy"), RETRY)
        streamed = await http.post(f"{w.url}/v1/responses", json={"model": "words", "input": "hello"}, headers=RETRY)
        assert {answer.status_code for answer in (fresh, other, streamed)} == {200}
        assert len(await w.jobs()) == 4


@each_sdk
async def test_rule_5_the_sdk_tries_again_and_finds_its_job(sdk: Sdk) -> None:
    """An SDK that timed out sends the call once more by itself: it is answered by the job that it began."""
    async with world() as w:
        asked = asyncio.create_task(
            sdk(w.url, "chat", retries=2, timeout=0.5, model="words", messages=user("one @go two"))
        )
        await until(lambda: len(w.seen) >= 2, "the SDK came back")
        w.gates.open("go")
        answer = await asked
        assert answer["value"]["choices"][0]["message"]["content"] == "one two "
        assert (await w.the_job())["id"] == answer["headers"]["x-job-id"]


async def test_a_retry_comes_too_late_for_a_job_that_ended_long_ago() -> None:
    """Then it is a call like any other."""
    async with world(options=GatewayOptions(reattach_s=0)) as w, httpx.AsyncClient(base_url=w.url) as http:
        for headers in (FIRST, RETRY):
            body = {"model": "words", "messages": user("hello")}
            await http.post("/v1/chat/completions", json=body, headers=headers)
        assert len(await w.jobs()) == 2


HOPPING = GatewayOptions(call_wait_s=0.05)


@pytest.mark.parametrize("do", ["chat", "embed", "respond"])
@each_sdk
async def test_a_long_call_is_sent_on_and_is_one_call(sdk: Sdk, do: str) -> None:
    """Answered 303 to the job's result before a proxy loses patience, again and again; the SDK follows by itself."""
    if do == "respond" and not sdk.knows_responses:
        pytest.skip("this SDK knows no responses")
    async with world(options=HOPPING) as w:
        if do == "embed":
            await w.pause("default")
            asked = asyncio.create_task(sdk(w.url, "embed", model="lengths", input="four"))
        elif do == "chat":
            asked = asyncio.create_task(sdk(w.url, "chat", model="words", messages=user("one @go two")))
        else:
            asked = asyncio.create_task(sdk(w.url, "respond", model="words", input="one @go two"))
        await until(lambda: any("hop=3" in line for line in w.seen), "it was sent on three times")
        w.gates.open("go")
        await w.resume("default")
        answer = await asked
        job = await w.the_job()
    assert answer["hops"] >= 3
    assert answer["headers"]["x-job-id"] == job["id"]
    if do == "embed":
        assert answer["value"]["data"][0]["embedding"] == [4.0, 0.25, -1.5]
    elif do == "chat":
        assert answer["value"]["choices"][0]["message"]["content"] == "one two "
    else:
        assert answer["value"]["status"] == "completed"


@each_sdk
async def test_a_call_of_many_hops_is_told_to_come_back(sdk: Sdk) -> None:
    """An SDK follows 20 redirects: before that it is told `sync_timeout`, tries again, and finds the job again."""
    options = GatewayOptions(call_wait_s=0.02, call_hops=4)
    async with world(options=options) as w:
        gave_up = await sdk(w.url, "chat", model="words", messages=user("never @never"))
        assert (gave_up["error"]["class"], gave_up["error"]["status_code"]) == ("InternalServerError", 504)
        assert gave_up["error"]["code"] == "sync_timeout"
        asked = asyncio.create_task(sdk(w.url, "chat", retries=2, model="words", messages=user("one @go two")))
        await until(lambda: sum("hop=4" in line for line in w.seen) >= 2, "it timed out")
        w.gates.open("go")
        answer = await asked
        assert answer["value"]["choices"][0]["message"]["content"] == "one two "
        assert len(await w.jobs()) == 2

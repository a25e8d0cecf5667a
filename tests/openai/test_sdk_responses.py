"""Responses as OpenAI's SDKs see them: whole, in events, in the background, left and come back to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai_support import Sdk, World, response_sdk, until, world

from ropeway.engines.connect import connect
from servers import shared_server

ENGINES = ["memory", "sqlite", "valkey"]
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}


@asynccontextmanager
async def two_gateways(engine: str, folder: Path) -> AsyncIterator[World]:
    """On this engine."""
    if engine != "valkey":
        async with world("memory:" if engine == "memory" else f"sqlite:///{folder}/jobs.db", gateways=2) as w:
            yield w
        return
    opened = connect(f"{shared_server().url}?prefix={folder.name}")
    await opened.open()
    async with world(opened, gateways=2) as w:
        yield w
    await opened.shut()


@response_sdk
async def test_a_response_is_answered_whole(sdk: Sdk) -> None:
    """One job, seen as a response; it can be read again by its id."""
    async with world() as w:
        answer = await sdk(
            w.url, "respond", model="words", input="one two", instructions="Be brief.", metadata={"a": "b"}
        )
        job = await w.the_job()
        again = await sdk(w.url, "retrieve", id_=answer["value"]["id"])
    response = answer["value"]
    assert response["id"] == job["id"].replace("job_", "resp_")
    assert (response["status"], response["model"], response["instructions"]) == ("completed", "words", "Be brief.")
    (item,) = response["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"][0]["text"] == "one two "
    assert (response["metadata"], response["background"]) == ({"a": "b"}, False)
    assert (response["usage"]["input_tokens"], response["usage"]["output_tokens"]) == (4, 2)
    assert again == response
    assert answer["headers"]["x-job-id"] == job["id"]


@response_sdk
async def test_a_response_is_streamed(sdk: Sdk) -> None:
    """Numbered events from `created` to `completed`; the SDK's own helper puts the same together."""
    async with world() as w:
        events = (await sdk(w.url, "respond_stream", model="words", input="one two"))["events"]
        helped = await sdk(w.url, "respond_helper", model="words", input="one two")
        whole = await sdk(w.url, "retrieve", id_=events[0]["response"]["id"])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    types = [event["type"] for event in events]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "one two "
    assert types == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        *["response.output_text.delta"] * len(deltas), "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert events[-1]["response"] == whole
    assert helped["final"]["output"][0]["content"][0]["text"] == "one two "
    assert helped["final"]["status"] == "completed"


@response_sdk
async def test_tools_and_thoughts_are_items(sdk: Sdk) -> None:
    """Calls and reasoning come as items of their own; a call's output goes back as one, after the response before."""
    async with world() as w:
        first = (await sdk(w.url, "respond", model="org/tools:1", input="weather?", tools=[WEATHER]))["value"]
        events = (await sdk(w.url, "respond_stream", model="org/tools:1", input="weather?", tools=[WEATHER]))["events"]
        output = {"type": "function_call_output", "call_id": first["output"][1]["call_id"], "output": "sunny"}
        second = await sdk(w.url, "respond", model="org/tools:1", input=[output], previous_response_id=first["id"])
        asked = (await w.jobs())[0]["input"]["request"]["messages"]
    reasoning, call = first["output"]
    assert (reasoning["type"], reasoning["content"][0]["text"]) == ("reasoning", "They want a tool. I have some.")
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "weather", '{"city": "Ulm"}')
    done = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert [event["arguments"] for event in done] == ['{"city": "Ulm"}']
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning", "function_call"]
    assert [message["role"] for message in asked] == ["user", "assistant", "tool"]
    assert asked[1]["tool_calls"][0]["id"] == asked[2]["tool_call_id"] == "call_0"
    text = second["value"]["output"][1]["content"][0]["text"]
    assert (text, second["value"]["status"]) == ("it is sunny", "incomplete")
    assert second["value"]["incomplete_details"]["reason"] == "max_output_tokens"


@pytest.mark.parametrize("engine", ENGINES)
@response_sdk
async def test_a_response_begun_at_one_gateway_is_resumed_at_another(sdk: Sdk, engine: str, tmp_path: Path) -> None:
    """In the background, its connection cut in mid-stream: the rest comes from the other gateway, no gap, no repeat."""
    async with two_gateways(engine, tmp_path) as w:
        args: dict[str, Any] = {"model": "words", "input": "one two @go three four", "background": True}
        before = (await sdk(w.urls[0], "respond_stream", only=6, **args))["events"]
        id_ = before[0]["response"]["id"]
        await until(lambda: "go" in w.gates.reached, "the task waits")
        live = await sdk(w.urls[1], "retrieve", id_=id_)
        resumed = asyncio.create_task(sdk(w.urls[1], "resume", id_=id_, after=before[-1]["sequence_number"]))
        await until(lambda: w.gateways[1].waiting == 1, "the reader waits at the other gateway")
        w.gates.open("go")
        after = (await resumed)["events"]
        whole = [(await sdk(url, "resume", id_=id_, after=-1 + n))["events"] for n, url in enumerate(w.urls, 1)]
        final = await sdk(w.urls[0], "retrieve", id_=id_)
    assert live["status"] == "in_progress"
    numbers = [event["sequence_number"] for event in before + after]
    assert numbers == list(range(len(numbers)))
    assert after[-1]["response"] == final
    text = "".join(event["delta"] for event in before + after if event["type"] == "response.output_text.delta")
    assert text == final["output"][0]["content"][0]["text"] == "one two three four "
    assert whole[0] == (before + after)[1:]
    assert whole[1] == (before + after)[2:]


@response_sdk
async def test_a_response_in_the_background_is_polled_cancelled_and_deleted(sdk: Sdk) -> None:
    """Queued at once; cancelling it twice is harmless, and shows what it had made; deleted, it is unknown."""
    async with world() as w:
        begun = (await sdk(w.url, "respond", model="words", input="one @go two", background=True))["value"]
        await until(lambda: "go" in w.gates.reached, "the task waits")
        cancelled = [await sdk(w.url, "cancel", id_=begun["id"]) for _ in range(2)]
        events = (await sdk(w.url, "resume", id_=begun["id"], after=0))["events"]
        gone_on = (await sdk(w.url, "respond", model="words", input="x", previous_response_id=begun["id"]))["error"]
        await sdk(w.url, "delete", id_=begun["id"])
        unknown = (await sdk(w.url, "retrieve", id_=begun["id"]))["error"]
        assert await w.jobs() == []
    assert (begun["status"], begun["background"], begun["output"]) == ("queued", True, [])
    assert cancelled[0]["status"] == "cancelled"
    assert cancelled[0] == cancelled[1] == events[-1]["response"]
    assert cancelled[0]["output"][0]["content"][0]["text"] == "one "
    assert cancelled[0]["output"][0]["status"] == "incomplete"
    assert events[-1]["type"] == "response.cancelled"
    assert (gone_on["status_code"], gone_on["param"]) == (400, "previous_response_id")
    assert (unknown["class"], unknown["status_code"]) == ("NotFoundError", 404)


@response_sdk
async def test_what_a_response_was_asked_is_listed(sdk: Sdk) -> None:
    """The messages as items, the newest first unless told otherwise, page by page."""
    said = [
        {"role": "user", "content": "one"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "three"}]},
    ]
    async with world() as w:
        id_ = (await sdk(w.url, "respond", model="words", input=said, instructions="Count."))["value"]["id"]
        newest_first = await sdk(w.url, "input_items", id_=id_, limit=1)
        in_order = await sdk(w.url, "input_items", id_=id_, order="asc", limit=2)
    texts = [item["content"][0]["text"] for item in in_order]
    assert texts == ["one", "two", "three"]
    assert [item["id"] for item in newest_first] == [item["id"] for item in in_order][::-1]
    assert [item["role"] for item in in_order] == ["user", "assistant", "user"]


@response_sdk
async def test_a_response_that_is_not_kept_cannot_be_read_again(sdk: Sdk) -> None:
    """`store: false`: the answer is given, and that was it."""
    async with world() as w:
        answer = (await sdk(w.url, "respond", model="words", input="one", store=False))["value"]
        unknown = (await sdk(w.url, "retrieve", id_=answer["id"]))["error"]
    assert (answer["status"], answer["store"]) == ("completed", False)
    assert (unknown["status_code"], unknown["code"]) == (404, "job_not_found")


@response_sdk
async def test_a_response_that_fails_says_so(sdk: Sdk) -> None:
    """Waited for, it is an error; in the background and in events, a response whose status is `failed`."""
    async with world() as w:
        whole = (await sdk(w.url, "respond", model="words", input="one !"))["error"]
        events = (await sdk(w.url, "respond_stream", model="words", input="one !"))["events"]
        read = await sdk(w.url, "retrieve", id_=events[0]["response"]["id"])
    assert (whole["status_code"], whole["code"]) == (500, "task_error")
    assert (events[-1]["type"], read["status"]) == ("response.failed", "failed")
    assert read["error"]["code"] == "server_error"
    assert "out of words" in read["error"]["message"]
    assert read["output"][0]["content"][0]["text"] == "one "


@response_sdk
async def test_only_a_response_in_the_background_is_cancelled(sdk: Sdk) -> None:
    """Any other ends when its client leaves."""
    async with world() as w:
        id_ = (await sdk(w.url, "respond", model="words", input="one"))["value"]["id"]
        refused = (await sdk(w.url, "cancel", id_=id_))["error"]
    assert (refused["class"], refused["status_code"]) == ("BadRequestError", 400)

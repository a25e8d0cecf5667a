"""Chats and embeddings as OpenAI's own SDKs see them, the oldest and the newest, blocking and async."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from openai_support import Sdk, each_sdk, newest_sdk, user, world

from ropeway.runtime import outputs

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


@each_sdk
async def test_models_are_listed_and_found(sdk: Sdk) -> None:
    """All that tasks serve, by id; an id may hold slashes and colons."""
    async with world() as w:
        models = await sdk(w.url, "models")
        assert [model["id"] for model in models] == ["lengths", "org/tools:1", "words"]
        assert {"object": "model", "created": 1_700_000_000, "owned_by": "ropeway"}.items() <= models[2].items()
        assert (await sdk(w.url, "model", id_="org/tools:1"))["id"] == "org/tools:1"
        refused = await sdk(w.url, "model", id_="org/tool:1")
    assert (refused["error"]["class"], refused["error"]["code"]) == ("NotFoundError", "model_not_found")
    assert "did you mean 'org/tools:1'?" in refused["error"]["said"]


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@each_sdk
async def test_a_chat_is_answered_whole(sdk: Sdk, engine: str, tmp_path: Any) -> None:
    """One job, seen as a completion: its id, its words, what was used, how long it took."""
    async with world("memory:" if engine == "memory" else f"sqlite:///{tmp_path}/jobs.db") as w:
        answer = await sdk(w.url, "chat", model="words", messages=user("one two three"))
        job = await w.the_job()
    completion, headers = answer["value"], answer["headers"]
    assert completion["id"] == job["id"].replace("job_", "chatcmpl_")
    assert completion["object"] == "chat.completion"
    assert completion["model"] == "words"
    (choice,) = completion["choices"]
    assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", "one two three ")
    assert choice["finish_reason"] == "stop"
    assert completion["usage"]["prompt_tokens"] == 3
    assert completion["usage"]["completion_tokens"] == 3
    assert completion["usage"]["total_tokens"] == 6
    assert headers["x-job-id"] == job["id"]
    assert headers["x-request-id"] == job["id"].replace("job_", "req_")
    assert headers["server-timing"].startswith("queue;dur=")
    assert "run;dur=" in headers["server-timing"]


@each_sdk
async def test_a_chat_is_streamed(sdk: Sdk) -> None:
    """In chunks of one id, the role with the first, the reason with the last, the usage after it when asked for."""
    async with world() as w:
        answer = await sdk(
            w.url,
            "chat_stream",
            model="words",
            messages=user("one two three"),
            stream_options={"include_usage": True},
        )
        job = await w.the_job()
    chunks = answer["events"]
    assert {chunk["id"] for chunk in chunks} == {job["id"].replace("job_", "chatcmpl_")}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert [delta.get("role") for delta in deltas] == ["assistant", *[None] * (len(deltas) - 1)]
    assert "".join(delta.get("content") or "" for delta in deltas) == "one two three "
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [*[None] * (len(deltas) - 1), "stop"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 6


@each_sdk
async def test_the_async_client_does_the_same(sdk: Sdk) -> None:
    """Whole and streamed."""
    async with world() as w:
        completion = await sdk(w.url, "chat_async", model="words", messages=user("one two"))
        streamed = await sdk(w.url, "chat_stream_async", model="words", messages=user("one two"))
    assert completion["choices"][0]["message"]["content"] == "one two "
    words = [chunk["choices"][0]["delta"].get("content") or "" for chunk in streamed["events"]]
    assert "".join(words) == "one two "


@each_sdk
async def test_tools_are_called_and_answered(sdk: Sdk) -> None:
    """Calls come whole, and in pieces that add up; what the tool said goes back to the model."""
    question: dict[str, Any] = {"model": "org/tools:1", "messages": user("weather?"), "tools": [WEATHER, CLOCK]}
    async with world() as w:
        whole = (await sdk(w.url, "chat", **question))["value"]["choices"][0]
        chunks = (await sdk(w.url, "chat_stream", **question))["events"]
        told = {"role": "tool", "tool_call_id": "call_0", "content": "sunny"}
        reply = (
            await sdk(
                w.url,
                "chat",
                model="org/tools:1",
                messages=[*user("weather?"), _message(whole), told],
                tools=[WEATHER],
            )
        )["value"]["choices"][0]
    calls = [
        (call["id"], call["function"]["name"], call["function"]["arguments"]) for call in whole["message"]["tool_calls"]
    ]
    assert calls == [("call_0", "weather", '{"city": "Ulm"}'), ("call_1", "clock", '{"city": "Ulm"}')]
    assert (whole["finish_reason"], whole["message"]["content"]) == ("tool_calls", None)
    assert whole["message"]["reasoning_content"] == "They want a tool. I have some."
    pieces = [piece for chunk in chunks for piece in chunk["choices"][0]["delta"].get("tool_calls") or []]
    assert [piece["index"] for piece in pieces] == [0, 0, 1, 1]
    assert "".join(piece["function"]["arguments"] for piece in pieces if piece["index"] == 1) == '{"city": "Ulm"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert (reply["message"]["content"], reply["finish_reason"]) == ("it is sunny", "length")


def _message(choice: dict[str, Any]) -> dict[str, Any]:
    """The assistant's message as a program sends it back."""
    return {name: choice["message"][name] for name in ("role", "content", "tool_calls")}


@each_sdk
async def test_texts_are_embedded(sdk: Sdk) -> None:
    """A string or a list, in the SDK's own encoding (base64) and as numbers."""
    async with world() as w:
        packed = (await sdk(w.url, "embed", model="lengths", input=["four", "seventy"]))["value"]
        plain = (await sdk(w.url, "embed", model="lengths", input="four", encoding_format="float"))["value"]
        asked = [(await w.jobs())[n]["input"]["request"]["input"] for n in (1, 0)]
    assert [entry["embedding"] for entry in packed["data"]] == [[4.0, 0.25, -1.5], [7.0, 0.25, -1.5]]
    assert [entry["index"] for entry in packed["data"]] == [0, 1]
    assert plain["data"][0]["embedding"] == [4.0, 0.25, -1.5]
    assert packed["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert asked == [["four", "seventy"], ["four"]]


@newest_sdk
async def test_our_options_ride_along(newest: Sdk) -> None:
    """`job` says how the job is to be run, `service_tier` its priority; what nobody knows is ignored, and passed on."""
    async with world() as w:
        answer = await newest(
            w.url,
            "chat",
            model="words",
            messages=user("one two"),
            service_tier="flex",
            metadata={"who": "me"},
            max_completion_tokens=1,
            stop="stop",
            extra_body={"job": {"timeout": 7, "tags": ["chatty"], "metadata": {"more": "yes"}}, "mood": "calm"},
        )
        job = await w.the_job()
    assert answer["value"]["choices"][0]["message"]["content"] == "one "
    assert answer["value"]["service_tier"] == "flex"
    assert (job["priority"], job["tags"], job["metadata"]) == ("low", ["chatty"], {"who": "me", "more": "yes"})
    request = job["input"]["request"]
    assert (request["max_tokens"], request["stop"], request["extra"]) == (1, ["stop"], {"mood": "calm"})


@newest_sdk
async def test_a_native_submit_is_the_same_chat(newest: Sdk) -> None:
    """The job of a chat may be submitted, followed and fetched natively, and be seen as a completion all the same."""
    async with world() as w, httpx.AsyncClient(base_url=w.url) as http:
        submitted = await http.post(
            "/v1/jobs",
            json={"task": "chat", "input": {"request": {"model": "words", "messages": user("one two")}}},
            headers={"Prefer": "wait=20"},
        )
        job = submitted.json()
        assert job["output"] == "one two "
        seen = await http.get(f"/v1/jobs/{job['id']}/result", params={"as": "chat.completion"})
        wrong = await http.get(f"/v1/jobs/{job['id']}/result", params={"as": "embedding.list"})
        unknown = await http.get(f"/v1/jobs/{job['id']}/result", params={"as": "poem"})
    assert seen.json()["choices"][0]["message"]["content"] == "one two "
    assert (wrong.status_code, wrong.json()["code"]) == (500, "output_invalid")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "as")


async def test_a_large_answer_comes_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output too large for the job's row is in a file of its own: whoever asks for the answer does not see that."""
    monkeypatch.setattr(outputs, "INLINE_BYTES", 1_000)
    texts = ["x" * 100] * 200
    async with world(f"sqlite:///{tmp_path}/jobs.db") as w, httpx.AsyncClient(base_url=w.url) as http:
        answer = await http.post("/v1/embeddings", json={"model": "lengths", "input": texts})
        (job,) = await w.engine.get("default", [answer.headers["x-job-id"]])
    assert job is not None
    assert "$file" in (job.output or "")
    assert [entry["embedding"][0] for entry in answer.json()["data"]] == [100.0] * 200

"""What is refused, as OpenAI's SDKs tell it: the class to catch, the code, and the member that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai_support import Sdk, each_sdk, newest_sdk, user, world

HELLO: dict[str, Any] = {"model": "words", "messages": user("hello")}
PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}]

CHATS: list[tuple[dict[str, Any], str, str]] = [
    ({"n": 2}, "n", "one choice is made at a time"),
    ({"messages": []}, "messages", "there is nothing to answer"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "a role is one of"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "a string or a list of parts"),
    ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages[0].content[0]", "a part's type"),
    ({"messages": PICTURE}, "messages[0].content", "does not take pictures"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "does not take tools"),
    ({"response_format": {"type": "json_object"}}, "response_format", "does not take response_format"),
    ({"response_format": {"type": "yaml"}}, "response_format.type", "one of text, json_object, json_schema"),
    ({"logprobs": True}, "logprobs", "does not take logprobs"),
    ({"functions": [{"name": "f"}]}, "functions", "use tools"),
    ({"temperature": 3}, "temperature", "0 to 2"),
    ({"max_tokens": 0}, "max_tokens", "at least 1"),
    ({"stop": [str(n) for n in range(17)]}, "stop", "at most 16"),
    ({"model": "lengths"}, "model", "for embeddings, not chat completions and responses"),
    ({"extra_body": {"temperature": "hot"}}, "temperature", "Expected `float"),
    ({"extra_body": {"job": {"queue": "no queue!"}}}, "queue", "is no queue name"),
    ({"extra_body": {"job": {"colour": "red"}}}, "job.colour", "unknown field `colour`"),
    ({"extra_body": {"job": {"task": "other"}}}, "job.task", "is what this call itself says"),
]


@pytest.mark.parametrize(
    ("change", "param", "said"), CHATS, ids=[f"{param}-{n}" for n, (_, param, _) in enumerate(CHATS)]
)
@newest_sdk
async def test_a_chat_that_cannot_be(newest: Sdk, change: dict[str, Any], param: str, said: str) -> None:
    """Refused before it becomes a job, with the member's name."""
    async with world() as w:
        refused = (await newest(w.url, "chat", **{**HELLO, **change}))["error"]
        assert await w.jobs() == []
    assert (refused["class"], refused["status_code"], refused["param"]) == ("BadRequestError", 400, param)
    assert said in refused["said"]


EMBEDDINGS: list[tuple[Any, str, str]] = [
    ([[1, 2, 3]], "input", "send text"),
    ([1, 2, 3], "input", "send text"),
    ([], "input", "at least one"),
    ([""], "input[0]", "not empty"),
    (["x"] * 2049, "input", "at most 2048"),
]


@pytest.mark.parametrize(("texts", "param", "said"), EMBEDDINGS)
@newest_sdk
async def test_texts_that_cannot_be_embedded(newest: Sdk, texts: Any, param: str, said: str) -> None:
    """Token numbers above all: their meaning is one model's own."""
    async with world() as w:
        refused = (await newest(w.url, "embed", model="lengths", input=texts))["error"]
    assert (refused["status_code"], refused["param"]) == (400, param)
    assert said in refused["said"]


@newest_sdk
async def test_vectors_of_another_length_need_a_model_that_can(newest: Sdk) -> None:
    """It says so on its card."""
    async with world() as w:
        refused = (await newest(w.url, "embed", model="lengths", input="x", dimensions=2))["error"]
    assert (refused["param"], refused["code"]) == ("dimensions", "invalid_request")


RESPONSES: list[tuple[dict[str, Any], str, str]] = [
    ({"input": ""}, "input", "nothing to answer"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "not read here"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "functions only"),
    ({"background": True, "store": False}, "store", "is kept"),
    ({"conversation": "conv_1"}, "conversation", "use previous_response_id"),
    ({"previous_response_id": "resp_0"}, "", "no response resp_0"),
    ({"model": "org/tools:1", "tool_choice": {"type": "file_search"}}, "tool_choice", "names a function"),
]


@pytest.mark.parametrize(("change", "param", "said"), RESPONSES)
@newest_sdk
async def test_a_response_that_cannot_be(newest: Sdk, change: dict[str, Any], param: str, said: str) -> None:
    """Refused before it becomes a job."""
    async with world() as w:
        refused = (await newest(w.url, "respond", **{"model": "words", "input": "hello", **change}))["error"]
        assert await w.jobs() == []
    assert refused["status_code"] == (404 if not param else 400)
    assert (refused["param"] or "") == param
    assert said in refused["said"]


@each_sdk
async def test_a_job_that_fails_is_an_error_of_its_kind(sdk: Sdk) -> None:
    """A whole answer fails with a status, which says not to try again; the job's own error stands in the body."""
    async with world() as w:
        refused = (await sdk(w.url, "chat", retries=2, model="words", messages=user("one !")))["error"]
        job = await w.the_job()
    assert (refused["class"], refused["status_code"]) == ("InternalServerError", 500)
    assert (refused["code"], job["state"]) == ("task_error", "failed")
    assert "out of words" in refused["said"]


DEEP = ("messages", "tools", "input", "text")  # members that are looked into
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    10**40,
    "",
    "x",
    "\u0000",
    [],
    [None],
    [[]],
    {},
    {"type": []},
    {"x": {"y": 1}},
]
MEMBERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "/v1/chat/completions": (
        {"model": "org/tools:1", "messages": user("hi")},
        ["messages", "tools", "tool_choice", "response_format", "stop", "logit_bias", "stream_options", "modalities",
         "audio", "functions", "job", "metadata", "max_tokens", "seed", "service_tier", "extra", "user", "temperature"],
    ),
    "/v1/responses": (
        {"model": "org/tools:1", "input": "hi"},
        ["input", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "previous_response_id",
         "background", "store", "metadata", "max_output_tokens", "conversation", "truncation", "job"],
    ),
    "/v1/embeddings": (
        {"model": "lengths", "input": "hi"},
        ["input", "model", "dimensions", "encoding_format", "job"],
    ),
    "/v1/batches": (
        {"input_file_id": "file_0", "endpoint": "/v1/responses", "completion_window": "24h"},
        ["input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("path", MEMBERS)
async def test_no_value_of_a_member_is_an_unexpected_failure(path: str, tmp_path: Path) -> None:
    """Whatever stands in a member, alone or in the shapes that are looked into: taken, or refused with a reason."""
    good, members = MEMBERS[path]
    async with world(blobs=f"file:{tmp_path}") as w, httpx.AsyncClient(base_url=w.url) as http:
        for member in members:
            inner = (
                [{name: value} for name in ("type", "content", "function") for value in ODD] if member in DEEP else []
            )
            for odd in (*ODD, *inner):
                for value in (odd, [odd]) if member in DEEP else (odd,):
                    asked = {**good, "background": True} if path == "/v1/responses" else good
                    body = json.dumps({**asked, member: value})
                    answer = await http.post(path, content=body, headers={"content-type": "application/json"})
                    assert answer.status_code < 500, (body, answer.text)
                    assert answer.status_code < 300 or answer.json()["error"]["message"]


async def test_no_native_chat_is_an_unexpected_failure() -> None:
    """A native submit may put anything into a chat's messages: its views are there, or say why not."""
    async with world() as w, httpx.AsyncClient(base_url=w.url) as http:
        for odd in ODD:
            for message in ({"role": odd}, {"role": "user", "content": odd}, {"role": "tool", "tool_calls": odd}):
                request = {"model": "words", "messages": [message], "tools": [{"function": odd}]}
                if isinstance(odd, int) and odd > 1 << 64:
                    continue
                job = (await http.post("/v1/jobs", json={"task": "chat", "input": {"request": request}})).json()
                suffix = job["id"].removeprefix("job_")
                for path in ("", "/input_items", "?stream=true"):
                    answer = await http.get(f"/v1/responses/resp_{suffix}{path}")
                    assert answer.status_code < 500, (request, answer.text)

"""Views are folds over the log: the same bytes on every gateway and every time, whatever the job has been through."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "serving"))

from openai_support import data_of, user
from serving_support import ENGINES, FREE, GREET, QUICK, Stage, stage

from ropeway.domain.lease import Assignment, Outcome
from ropeway.domain.worker import ModelCard, TaskCard
from ropeway.serving import Gateway
from ropeway.serving.openai.names import job_id_of

CHAT = TaskCard("chat", queue="hall", streams=True, models=(ModelCard("m", "chat"),))
VECTORS = TaskCard("vectors", queue="hall", models=(ModelCard("v", "embedding"),))
AGAIN = Outcome("retry", error='{"code":"task_error","message":"once more"}', delay_ms=0)
HELLO = {"model": "m", "messages": user("hello")}


async def deltas(s: Stage, at: Assignment, *items: Any, first: int = 0) -> None:
    """Pieces of an answer, as a worker writes them."""
    await s.hand.emit(at, *[("output.delta", {"index": first + n, "delta": item}) for n, item in enumerate(items)])


def body(**members: Any) -> dict[str, Any]:
    return {
        "headers": {"content-type": "application/json"},
        "body": msgspec.json.encode({**HELLO, "stream": True, **members}),
    }


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_retry_before_the_first_word_is_not_seen(engine: str, tmp_path: Path) -> None:
    """An attempt that said nothing leaves no trace in the stream."""
    async with stage(engine, tmp_path) as s:
        await s.hand.announce(GREET, FREE, CHAT)
        async with s.call("POST", "/v1/chat/completions", **body(job={"retry": {"base_s": 0}})) as call:
            first = await _taken(s, call)
            await s.hand.emit(first, ("progress", {"fraction": 0.1}))
            await s.hand.end(first, AGAIN)
            second = await s.hand.take()
            await deltas(s, second, "all ", "is well")
            await s.hand.succeed(second, "all is well")
            received = await call.until(lambda _: False)
    words = [chunk["choices"][0]["delta"].get("content", "") for chunk in data_of(received)]
    assert "".join(words) == "all is well"
    assert received.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_chat_stream_cannot_take_its_words_back(engine: str, tmp_path: Path) -> None:
    """When an attempt that said something gives way to another, the stream ends with an error; the job goes on."""
    async with stage(engine, tmp_path) as s:
        await s.hand.announce(GREET, FREE, CHAT)
        async with s.call("POST", "/v1/chat/completions", **body(job={"retry": {"base_s": 0}})) as call:
            first = await _taken(s, call)
            await deltas(s, first, "all ")
            await s.hand.end(first, AGAIN)
            second = await s.hand.take()
            received = await call.until(lambda _: False)
        await deltas(s, second, "nothing ", "is well")
        await s.hand.succeed(second, "nothing is well")
        whole = await s.http.get(f"/v1/jobs/{second.job_id}/result", params={"as": "chat.completion"})
    *_, last = data_of(received)
    assert last["error"]["code"] == "output_reset"
    assert received.endswith(b"data: [DONE]\n\n")
    assert whole.json()["choices"][0]["message"]["content"] == "nothing is well"


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_response_takes_its_items_back(engine: str, tmp_path: Path) -> None:
    """What was begun ends as `incomplete`; the new attempt's items take the next places, and are alone in the end."""
    async with stage(engine, tmp_path) as s:
        job_id = await a_response_in_two_attempts(s)
        id_ = job_id.replace("job_", "resp_")
        async with s.call("GET", f"/v1/responses/{id_}", query="stream=true") as call:
            events = list(data_of(await call.until(lambda _: False)))
        read = (await s.http.get(f"/v1/responses/{id_}")).json()
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [(event["output_index"], event["item"]["status"]) for event in done] == [(0, "incomplete"), (1, "completed")]
    assert len({event["item"]["id"] for event in done}) == 2
    assert [item["id"] for item in read["output"]] == [done[1]["item"]["id"]]
    assert read["output"][0]["content"][0]["text"] == "nothing is well"
    assert events[-1]["response"] == read


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_response_is_resumed_from_every_event(engine: str, tmp_path: Path) -> None:
    """After each number the rest comes, byte for byte, from any gateway."""
    async with stage(engine, tmp_path) as s:
        id_ = (await a_response_in_two_attempts(s)).replace("job_", "resp_")
        other = Gateway(s.engine, QUICK)
        async with s.call("GET", f"/v1/responses/{id_}", query="stream=true") as call:
            whole = await call.until(lambda _: False)
        blocks = whole.split(b"\n\n")[:-1]
        for n in range(len(blocks)):
            call = s.call("GET", f"/v1/responses/{id_}", query=f"stream=true&starting_after={n}")
            call.app = other if n % 2 else s.gateway
            async with call:
                rest = await call.until(lambda _: False)
            assert rest == b"".join(block + b"\n\n" for block in blocks[n + 1 :])
        await other.stop()
    assert [msgspec.json.decode(block.split(b"data: ")[1])["sequence_number"] for block in blocks] == list(
        range(len(blocks))
    )


async def test_every_gateway_gives_the_same_bytes() -> None:
    """Whole answers and streams are made from the job alone."""
    async with stage() as s:
        await s.hand.announce(GREET, FREE, CHAT)
        gateways = [s.gateway, Gateway(s.engine, QUICK)]
        answers, headers = [], {"content-type": "application/json", "x-stainless-retry-count": "0"}
        call = s.call("POST", "/v1/chat/completions", headers=headers, body=body()["body"])
        async with call:
            at = await _taken(s, call)
            await deltas(s, at, "one ", {"content": "two", "finish_reason": "length"})
            await s.hand.succeed(at, ["one ", {"content": "two", "finish_reason": "length"}])
            answers.append(await call.until(lambda _: False))
        for gateway in gateways:
            again = s.call(
                "POST",
                "/v1/chat/completions",
                headers={**headers, "x-stainless-retry-count": "1"},
                body=body()["body"],
            )
            again.app = gateway
            async with again:
                answers.append(await again.until(lambda _: False))
        await gateways[1].stop()
    assert len(set(answers)) == 1
    assert b'"finish_reason":"length"' in answers[0]


async def test_an_output_that_is_no_answer_is_an_error() -> None:
    """A native task may make anything: what is no answer of a model is told so, whole and streamed."""
    async with stage() as s:
        await s.hand.announce(GREET, FREE, CHAT, VECTORS)
        async with s.call("POST", "/v1/chat/completions", **body()) as call:
            at = await _taken(s, call)
            await deltas(s, at, 7)
            await s.hand.succeed(at, [7])
            received = await call.until(lambda _: False)
        whole = await s.http.get(f"/v1/jobs/{at.job_id}/result", params={"as": "chat.completion"})
        async with s.call(
            "POST",
            "/v1/embeddings",
            headers={"content-type": "application/json"},
            body=b'{"model":"v","input":["a","b"]}',
        ) as call:
            at = await _taken(s, call)
            await s.hand.succeed(at, [[1.0]])
            short = await call.until(lambda _: False)
    (chunk,) = data_of(received)
    assert chunk["error"]["code"] == whole.json()["code"] == "output_invalid"
    assert b"1 vectors for 2 texts" in short


async def test_a_drained_gateway_ends_its_streams_clearly() -> None:
    """A chat cannot be resumed, so it ends with an error that names the job; a response just ends, to be resumed."""
    async with stage() as s:
        await s.hand.announce(GREET, FREE, CHAT)
        async with (
            s.call("POST", "/v1/chat/completions", **body()) as chat,
            s.call(
                "POST",
                "/v1/responses",
                headers={"content-type": "application/json"},
                body=b'{"model":"m","input":"hello","stream":true}',
            ) as response,
        ):
            await chat.until(lambda _: bool(chat.status))
            await response.until(lambda data: b"response.created" in data)
            await s.gateway.drain()
            said, told = await chat.until(lambda _: False), await response.until(lambda _: False)
        jobs = (await s.engine.get("default", [job_id_of("resp_", _response_id(told))]))[0]
    *_, last = data_of(said)
    assert last["error"]["code"] == "draining"
    assert chat.answer_headers["x-job-id"] in last["error"]["message"]
    assert [event["type"] for event in data_of(told)] == ["response.created"]
    assert jobs is not None
    assert jobs.cancel_requested_at_ms is None


async def test_another_tenants_response_is_as_an_unknown_one() -> None:
    """The same answer, but for the request's own id."""
    async with stage() as s:
        id_ = (await a_response_in_two_attempts(s)).replace("job_", "resp_")
        other = Gateway(s.engine, QUICK, tenant="other")
        answers = []
        for path in (f"/v1/responses/{id_}", f"/v1/responses/resp_{'0' * 32}"):
            call = s.call("GET", path)
            call.app = other
            async with call:
                problem = msgspec.json.decode(await call.until(lambda _: False))
            del problem["instance"]
            answers.append((call.status, msgspec.json.encode(problem).replace(path[-37:].encode(), b"ID")))
        await other.stop()
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


async def a_response_in_two_attempts(s: Stage) -> str:
    """The first said a word, the second succeeded."""
    await s.hand.announce(GREET, FREE, CHAT)
    asked = {"model": "m", "input": "hello", "background": True, "job": {"retry": {"base_s": 0}}}
    answer = await s.http.post("/v1/responses", json=asked)
    assert answer.status_code == 200, answer.text
    first = await s.hand.take()
    await deltas(s, first, "all ")
    await s.hand.end(first, AGAIN)
    second = await s.hand.take()
    await deltas(s, second, "nothing ", {"content": "is well"})
    await s.hand.succeed(second, ["nothing ", {"content": "is well"}])
    return second.job_id


async def _taken(s: Stage, call: Any) -> Assignment:
    """The call's job, leased, once the call is in."""
    while not s.gateway.waiting:
        await _turn()
    return await s.hand.take()


async def _turn() -> None:
    from serving_support import turn

    await turn()


def _response_id(stream: bytes) -> str:
    first: str = next(iter(data_of(stream)))["response"]["id"]
    return first

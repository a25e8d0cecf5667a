"""Submitting: what a 202 says, waiting for the end, and being safe to repeat."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from serving_support import ENGINES, stage, until

from ropeway.domain.errors import Fault, InputInvalid
from ropeway.domain.queue import QueueChange


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_submit_is_answered_with_the_job_and_where_it_is(engine: str, tmp_path: Path) -> None:
    """202, Location, the version as ETag, its place in line; the input is not sent back to its sender."""
    async with stage(engine, tmp_path) as s:
        answer = await s.http.post("/v1/jobs", json={"task": "greet", "input": {"name": "Ada"}, "tags": ["web"]})
        job = answer.json()
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
        assert answer.headers["etag"] == f'"{job["version"]}"'
        assert (job["state"], job["queue"], job["queue_position"], job["tags"]) == ("queued", "hall", 0, ["web"])
        assert job["durability"] == ("memory" if engine == "memory" else "disk")
        assert "input" not in job
        assert (await s.job(job["id"]))["input"] == {"name": "Ada"}


async def test_every_field_of_a_request_reaches_the_job() -> None:
    """Durations are seconds on the wire."""
    async with stage() as s:
        job_id = await s.submit(
            "free",
            [1, 2],
            queue="other",
            priority="high",
            delay=30,
            queue_timeout=60,
            timeout=5,
            first_output_timeout=3,
            output_timeout=4,
            retention=10,
            retry={"max_attempts": 7},
            concurrency_key="user-42",
            cost=2.5,
            on_disconnect="cancel",
            metadata={"a": "b"},
            tags=["x", "y"],
        )
        (job,) = await s.engine.get("default", [job_id])
        assert job is not None
        options = job.options
        assert (job.queue, job.priority.name, job.state, job.input) == ("other", "high", "scheduled", "[1,2]")
        assert job.run_at_ms == job.created_at_ms + 30_000
        assert (options.queue_timeout_s, options.timeout_s, options.retention_s) == (60, 5, 10)
        assert (options.first_output_timeout_s, options.output_timeout_s) == (3, 4)
        assert (options.retry.max_attempts, options.concurrency_key, options.cost) == (7, "user-42", 2.5)
        assert (options.on_disconnect, options.metadata, options.tags) == ("cancel", {"a": "b"}, ("x", "y"))


async def test_the_inputs_text_is_kept_as_it_was_written() -> None:
    """Big integers, escapes and member order are the caller's: no decoder stands between."""
    text = '{"b":123456789012345678901234567890,"a":"\\u0000\\u00e9","f":1.10}'
    async with stage() as s:
        answer = await s.http.post(
            "/v1/jobs",
            content=f'{{"task":"free","input":{text}}}',
            headers={"content-type": "application/json; charset=utf-8"},
        )
        assert answer.status_code == 202
        assert (await s.hand.take()).input == text


async def test_prefer_wait_gives_the_finished_job() -> None:
    """200 with the output when it ends in time: the status tells it from a 202."""
    async with stage() as s:
        post = s.http.post("/v1/jobs", json={"task": "free"}, headers={"Prefer": "respond-async, wait=30"})
        waiting = asyncio.create_task(post)
        await until(lambda: s.waiting == 1)
        await s.hand.succeed(await s.hand.take(), {"answer": 42})
        answer = await waiting
        assert (answer.status_code, answer.json()["output"]) == (200, {"answer": 42})
        assert answer.headers["preference-applied"] == "wait=30"


async def test_a_wait_that_is_too_short_gives_the_job_as_it_stands() -> None:
    """Still 202, still accepted."""
    async with stage() as s:
        answer = await s.http.post("/v1/jobs", json={"task": "free"}, headers={"Prefer": "wait=0"})
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_repeat_under_the_same_key_is_the_same_job(engine: str, tmp_path: Path) -> None:
    """However it is spelled, the same body under one key is one job, told as it stands, and said to be a replay."""
    async with stage(engine, tmp_path) as s:
        key = {"Idempotency-Key": "k-1", "Content-Type": "application/json"}
        first = await s.http.post("/v1/jobs", content=b'{"task":"free","input":{"a":1,"b":2}}', headers=key)
        again = await s.http.post("/v1/jobs", content=b'{ "input" : {"b":2, "a":1}, "task":"free" }', headers=key)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json()["id"] == again.json()["id"]
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        other = await s.http.post("/v1/jobs", content=b'{"task":"free","input":{"a":1}}', headers=key)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        await s.hand.succeed(await s.hand.take(), "done")
        ended = await s.http.post("/v1/jobs", content=b'{"task":"free","input":{"a":1,"b":2}}', headers=key)
        assert (ended.status_code, ended.json()["output"]) == (200, "done")


async def test_fifty_at_once_under_one_key_are_one_job() -> None:
    """F40: whoever came first made it, the others are given it."""
    async with stage() as s:
        body = {"task": "free", "input": {"n": 1}}
        posts = [s.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "one"}) for _ in range(50)]
        answers = await asyncio.gather(*posts)
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert sum("idempotency-replayed" in answer.headers for answer in answers) == 49


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a\tb", "é"])
async def test_a_key_that_is_none_is_refused(key: str) -> None:
    """1 to 255 visible ASCII characters."""
    async with (
        stage() as s,
        s.call(
            "POST",
            "/v1/jobs",
            headers={"content-type": "application/json", "idempotency-key": key},
            body=b'{"task":"free"}',
        ) as call,
    ):
        await call.done()
        assert (call.status, msgspec.json.decode(call.received)["error"]["param"]) == (400, "Idempotency-Key")


async def test_many_are_answered_line_by_line() -> None:
    """Each line has its own status; a bad one stands among the good."""
    lines = [
        b'{"task":"greet","input":{"name":"a"}}',
        b'{"task":"greet","input":{"nam":"a"}}',
        b'{"task":"nobody"}',
        b"{oops",
        b"",
        b'{"task":"free","input":[1]}\r',
    ]
    async with stage() as s:
        answer = await s.http.post(
            "/v1/jobs", content=b"\n".join(lines), headers={"content-type": "application/x-ndjson"}
        )
        told = [msgspec.json.decode(line) for line in answer.content.splitlines()]
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        assert [line["status"] for line in told] == [202, 422, 404, 400, 202]
        assert {"pointer": "/name", "detail": "is required"} in told[1]["problem"]["errors"]
        assert told[4]["job"]["task"] == "free"


async def test_the_same_lines_under_the_same_key_are_the_same_jobs() -> None:
    """A batch whose answer was lost is sent again as it was."""
    async with stage() as s:
        headers = {"content-type": "application/x-ndjson", "Idempotency-Key": "x" * 255}
        body = b'{"task":"free"}\n{"task":"free"}'
        first, again = [
            [
                msgspec.json.decode(line)
                for line in (await s.http.post("/v1/jobs", content=body, headers=headers)).iter_lines()
            ]
            for _ in range(2)
        ]
        assert len({line["job"]["id"] for line in first}) == 2
        assert [line["job"]["id"] for line in again] == [line["job"]["id"] for line in first]
        assert [line.get("replayed", False) for line in (*first, *again)] == [False, False, True, True]


async def test_too_many_lines_are_refused_as_a_whole() -> None:
    """Nothing of them is stored."""
    async with stage() as s:
        answer = await s.http.post(
            "/v1/jobs", content=b'{"task":"free"}\n' * 1001, headers={"content-type": "application/x-ndjson"}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        assert (await s.http.get("/v1/jobs")).json()["data"] == []


async def test_a_full_queue_is_503_and_a_full_tenant_429() -> None:
    """Capacity is ours, a tenant's limit its own; both say when to come again, and nothing is stored."""
    async with stage() as s:
        await s.engine.set_queue([QueueChange("hall", max_depth=2)])
        await s.submit(), await s.submit()
        full = await s.http.post("/v1/jobs", json={"task": "free"})
        assert (full.status_code, full.json()["code"], full.json()["depth"]) == (503, "queue_full", 2)
        assert (full.headers["x-should-retry"], full.json()["error"]["type"]) == ("true", "server_error")
        assert 1 <= int(full.headers["retry-after"]) <= 60
        await s.engine.set_queue([QueueChange("hall", max_depth=100, max_depth_per_tenant=2)])
        mine = await s.http.post("/v1/jobs", json={"task": "free"})
        assert (mine.status_code, mine.json()["code"]) == (429, "too_many_queued")
        assert 1 <= int(mine.headers["retry-after"]) <= 60


async def test_an_unknown_task_is_404_and_names_what_comes_close() -> None:
    """A slip of the pen is the usual reason."""
    async with stage() as s:
        answer = await s.http.post("/v1/jobs", json={"task": "great"})
        assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")
        assert "did you mean 'greet'" in answer.json()["detail"]


async def test_a_tasks_own_check_has_the_last_word() -> None:
    """An application in the same process refuses what the schema cannot tell."""

    def check(input_json: bytes) -> None:
        if b"Mallory" in input_json:
            raise InputInvalid("not that name", (Fault("/name", "is not welcome"),))

    async with stage(checks={"greet": check}) as s:
        answer = await s.http.post("/v1/jobs", json={"task": "greet", "input": {"name": "Mallory"}})
        assert (answer.status_code, answer.json()["errors"]) == (
            422,
            [{"pointer": "/name", "detail": "is not welcome"}],
        )
        await s.submit("greet", {"name": "Ada"})

"""System B's routes: their fields, what they refuse, and that nothing accepted is lost."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from examples.pipeline.settings import PipelineSettings
from pipeline_support import PATIENCE_S, QUICK, eventually, pipeline

from ropeway import WorkerOptions
from ropeway.serving import GatewayOptions

IDLE = WorkerOptions(name="w1", queues=("elsewhere",), concurrency=1, threads=1)
"""A worker that leaves the pipeline's queue alone, so that requests stay in it."""


async def test_a_request_is_accepted_done_and_told_of_in_full() -> None:
    """202 with an id; then everything that is stored of it: steps, threads, times, worker, result."""
    async with pipeline() as served:
        status = await served.ended("the quick fox", id="order-7")
    assert status["id"] == "order-7"
    assert status["text"] == "the quick fox"
    assert status["status"] == "succeeded"
    assert status["worker"] == "w1"
    assert status["attempt"] == 1
    assert status["step_1"]["found"] == "3 words, the longest is 'quick'"
    assert status["result"] == f"{status['step_2']['found']}: {status['step_1']['found']}"
    assert status["created"] == status["queued"] <= status["started"] <= status["completed"]
    assert status["thread"] == f"{status['step_1']['thread']}, {status['step_2']['thread']}"
    assert status["processing_time"] >= 0.02
    assert status["error"] is None


async def test_both_steps_run_side_by_side() -> None:
    """Two threads at once: the request takes as long as its longer step, not as long as both."""
    settings = PipelineSettings(step1_s=0.3, step2_s=0.3)
    async with pipeline(settings=settings) as served:
        status = await served.ended()
    assert status["step_1"]["thread"] != status["step_2"]["thread"]
    assert status["steps_time"] < status["step_1"]["seconds"] + status["step_2"]["seconds"]


async def test_the_async_form_needs_no_threads() -> None:
    """`--mode async` does the same work on the event loop."""
    async with pipeline(settings=PipelineSettings(0.02, 0.01, "async")) as served:
        status = await served.ended("two words")
        efficiency = await served.get("/thread-efficiency")
    assert status["result"].endswith("2 words, the longest is 'words'")
    assert status["thread"] == "MainThread, MainThread"
    assert efficiency["total"] == efficiency["threads_per_request"] == 0


async def test_a_request_that_fails_says_why() -> None:
    """A text without words fails for good, at its first attempt, and its status tells the error."""
    async with pipeline() as served:
        status = await served.ended(" \t ")
    assert status["status"] == "failed"
    assert status["error"] == "task_error: the text holds no words"
    assert status["attempt"] == 1
    assert status["result"] is None


async def test_the_same_id_and_text_are_the_same_request() -> None:
    """A client that repeats its submit makes one request, before and after its end."""
    async with pipeline() as served:
        first = await served.submit("once", id="r-1")
        await served.done(first["job_id"])
        again = await served.submit("once", id="r-1")
        stats = await served.get("/database/stats")
    assert not first["replayed"]
    assert again["replayed"]
    assert again["status"] == "succeeded"
    assert again["job_id"] == first["job_id"]
    assert stats["requests"] == 1


async def test_the_same_id_with_another_text_is_refused() -> None:
    """422, as for any idempotency key that is used again with another body."""
    async with pipeline() as served:
        await served.submit("once", id="r-1")
        answer = await served.refused(b'{"text": "other", "id": "r-1"}')
    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_key_reused"


async def test_without_an_id_each_submit_is_a_request_of_its_own() -> None:
    """The job's id is the request's, and both routes take it."""
    async with pipeline(worker=IDLE) as served:
        one, two = await served.submit("same"), await served.submit("same")
        assert one["id"] == one["job_id"] != two["id"]
        assert (await served.get(f"/status/{one['id']}"))["status"] == "queued"
        assert (await served.get(f"/status/{two['id']}"))["position"] == 1


async def test_a_request_can_be_followed_live() -> None:
    """The links lead into Ropeway's own gateway, mounted below: its events are the request's."""
    async with pipeline() as served:
        accepted = await served.submit("follow me")
        events = await served.http.get(accepted["links"]["events"])
        job = await served.get(accepted["links"]["job"])
    assert events.headers["content-type"].startswith("text/event-stream")
    kinds = [line.removeprefix("event: ") for line in events.text.splitlines() if line.startswith("event: ")]
    assert kinds == ["job.queued", "job.started", "job.succeeded"]
    assert job["task"] == "process"


async def test_a_request_can_be_followed_by_its_own_id() -> None:
    """Without knowing the job: the route leads to its log."""
    async with pipeline() as served:
        await served.ended("follow me", id="mine")
        events = await served.http.get("/status/mine/events", follow_redirects=True)
        assert (await served.http.get("/status/nobody/events", follow_redirects=True)).status_code == 404
    assert "event: job.succeeded" in events.text


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"null", 400, None),
        (b"[" * 30_000, 400, None),
        (b'{"text": "\xff"}', 400, None),
        (b'{"text": "\\ud800"}', 400, None),
        (b'{"text": NaN}', 400, None),
        (b"{}", 400, None),
        (b'{"text": 5}', 400, "text"),
        (b'{"text": null}', 400, "text"),
        (b'{"text": ""}', 400, "text"),
        (b'{"text": "' + b"a" * 10_001 + b'"}', 400, "text"),
        (b'{"text": "a", "more": 1}', 400, None),
        (b'{"text": "a", "id": ""}', 400, "id"),
        (b'{"text": "a", "id": 7}', 400, "id"),
        (b'{"text": "a", "id": "a b"}', 400, "id"),
        (b'{"text": "a", "id": "a\\n"}', 400, "id"),
        (b'{"text": "a", "id": "../x"}', 400, "id"),
        (b'{"text": "a", "id": "job_1"}', 400, "id"),
        (b'{"text": "a", "id": "' + b"i" * 129 + b'"}', 400, "id"),
        (b" " * 70_000, 413, None),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else str(value),
)
async def test_a_malformed_submit_is_refused_with_its_fault(body: bytes, status: int, param: str | None) -> None:
    """Whatever is wrong with a body, it is a 4xx that says so, and nothing is stored."""
    async with pipeline(worker=IDLE) as served:
        answer = await served.refused(body)
        assert (await served.get("/database/stats"))["requests"] == 0
    assert answer.status_code == status
    assert answer.json().get("param") == param
    assert answer.json()["detail"]


@pytest.mark.parametrize(("host", "status"), [("evil.test", 403), ("127.0.0.1:1", 200), ("[::1]:9", 200), ("", 403)])
async def test_strange_hosts_are_refused(host: str, status: int) -> None:
    """A page that has its own name resolve to this machine (DNS rebinding) reads nothing, here as in the gateway."""
    async with pipeline(worker=IDLE, options=GatewayOptions()) as served:
        for path in ("/queue-status", "/v1/queues"):
            answer = await served.http.get(path, headers={"host": host})
            assert answer.status_code == status, path


async def test_a_body_of_another_type_is_refused() -> None:
    """415: a page of another origin can send text/plain unasked, so it is not read as JSON."""
    async with pipeline(worker=IDLE) as served:
        answer = await served.refused(b'{"text": "a"}', "text/plain")
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "path", ["/status/nobody", "/status/job_00000000000000000000000000000000", "/status/%00", "/x"]
)
async def test_what_is_not_there_is_404(path: str) -> None:
    """An unknown request, whichever kind of id, and an unknown route."""
    async with pipeline(worker=IDLE) as served:
        assert (await served.http.get(path)).status_code == 404


async def test_the_status_route_knows_requests_only() -> None:
    """Another queue's job, such as a window of the time series, is no request."""
    async with pipeline(worker=IDLE) as served:
        jobs = await served.get("/v1/jobs?queue=pipeline-metrics")
        assert (await served.http.get(f"/status/{jobs['data'][0]['id']}")).status_code == 404


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", "/process", "POST"), ("POST", "/queue-status", "GET")])
async def test_a_wrong_method_is_405(method: str, path: str, allowed: str) -> None:
    """With the right one in Allow."""
    async with pipeline(worker=IDLE) as served:
        answer = await served.http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed


async def test_beyond_the_limit_a_submit_is_503_and_nothing_is_lost() -> None:
    """20 requests wait; the next is refused with Retry-After and leaves no trace; the 20 are all there, in line."""
    async with pipeline(worker=IDLE) as served:
        accepted = [await served.submit(f"text {number}") for number in range(QUICK.max_queued)]
        answer = await served.refused(b'{"text": "one too many"}')
        queue = await served.get("/queue-status")
        positions = [(await served.get(f"/status/{one['id']}"))["position"] for one in accepted]
    assert answer.status_code == 503
    assert answer.json()["code"] == "queue_full"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert (queue["waiting"], queue["limit"], queue["free"]) == (20, 20, 0)
    assert positions == list(range(20))


async def test_a_repeat_is_answered_even_when_the_line_is_full() -> None:
    """A client that was accepted, and did not hear it, is not told that there is no room."""
    async with pipeline(worker=IDLE) as served:
        for number in range(QUICK.max_queued):
            await served.submit("text", id=f"r-{number}")
        assert (await served.submit("text", id="r-3"))["replayed"]


async def test_many_requests_in_one_submit_are_answered_line_by_line() -> None:
    """NDJSON: each line has its own answer in its place; what is wrong with one costs the others nothing."""
    lines = b'{"text": "one", "id": "a"}\n\n{"text": 2}\nnonsense\n{"text": "four", "id": "job_x"}\n{"text": "five"}\n'
    async with pipeline() as served:
        answer = await served.http.post("/process", content=lines, headers={"content-type": "application/x-ndjson"})
        told = [json.loads(line) for line in answer.text.splitlines()]
        for line in (told[0], told[4]):
            await served.done(line["request"]["job_id"])
        status = await served.get("/status/a")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [line["status"] for line in told] == [202, 400, 400, 400, 202]
    assert [line["problem"].get("param") for line in told[1:4]] == ["text", None, "id"]
    assert status["status"] == "succeeded"


async def test_a_batch_fills_the_line_to_its_limit_and_no_further() -> None:
    """25 lines where 20 have room: 20 accepted, 5 answered 503, in their places."""
    lines = b"\n".join(b'{"text": "t %d"}' % number for number in range(25))
    async with pipeline(worker=IDLE) as served:
        answer = await served.http.post("/process", content=lines, headers={"content-type": "application/x-ndjson"})
        queue = await served.get("/queue-status")
    assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [202] * 20 + [503] * 5
    assert queue["waiting"] == 20


@pytest.mark.parametrize(("body", "status"), [(b"", 400), (b"\n \n", 400), (b'{"text":"a"}\n' * 1001, 413)])
async def test_a_batch_of_nothing_or_of_too_many_is_refused(body: bytes, status: int) -> None:
    """As a whole: nothing of it is stored."""
    async with pipeline(worker=IDLE) as served:
        assert (await served.refused(body, "application/x-ndjson")).status_code == status
        assert (await served.get("/database/stats"))["requests"] == 0


async def test_what_waits_is_told_by_worker() -> None:
    """One line for all: each worker's part of it is an even share, and places in flight are its own."""
    async with pipeline() as served:
        await asyncio.gather(*(served.submit(f"text {number}") for number in range(15)))
        queue = await served.get("/queue-status")
        assert [worker["name"] for worker in queue["workers"]] == ["w1"]
        assert queue["workers"][0]["slots"] == 8
        assert queue["workers"][0]["queued"] == queue["waiting"]


async def test_threads_in_use_are_told_while_they_work() -> None:
    """Requests held at a gate occupy all 8 places; each has one or two threads, and the advice says it is full."""
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with pipeline(settings=PipelineSettings(PATIENCE_S, PATIENCE_S)) as served:
        with pytest.MonkeyPatch.context() as patch:

            def wait_at_gate(_seconds: float) -> None:
                asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(PATIENCE_S)

            patch.setattr("examples.pipeline.tasks.block", wait_at_gate)
            accepted = [await served.submit(f"text {number}") for number in range(10)]

            async def all_in_flight() -> bool:
                return bool((await served.get("/thread-efficiency"))["in_flight"] == 8)

            await eventually(all_in_flight, "8 requests are in flight")
            efficiency = await served.get("/thread-efficiency")
            gate.set()
            for one in accepted:
                await served.done(one["job_id"])
    assert (efficiency["total"], efficiency["slots"], efficiency["in_flight_percent"]) == (16, 8, 100.0)
    assert 8 <= efficiency["in_use"] <= 16
    assert "all places are taken and 2 requests wait" in efficiency["advice"]


async def test_the_store_tells_what_it_holds(tmp_path: Path) -> None:
    """Counts by status, durability and size, and averages over the latest requests."""
    async with pipeline(f"sqlite:///{tmp_path}/pipeline.db") as served:
        await served.ended("fine")
        await served.ended("  ")
        stats = await served.get("/database/stats")
    assert (stats["engine"], stats["durability"]) == ("sqlite", "disk")
    assert stats["requests"] == 2
    assert stats["by_status"]["succeeded"] == stats["by_status"]["failed"] == 1
    assert stats["size_bytes"] > 0
    assert stats["latest"] == 1
    assert stats["average_processing_time"] >= 0.02


async def test_history_survives_a_restart(tmp_path: Path) -> None:
    """A new process on the same file knows the requests, and goes on with those that waited."""
    url = f"sqlite:///{tmp_path}/pipeline.db"
    async with pipeline(url) as served:
        before = await served.ended("remember me", id="r-1")
    async with pipeline(url, worker=IDLE) as served:
        await served.submit("later", id="r-2")
    async with pipeline(url) as served:
        assert await served.get("/status/r-1") == before
        await served.done((await served.submit("later", id="r-2"))["job_id"])
        assert (await served.get("/status/r-2"))["status"] == "succeeded"


async def test_sizing_is_told_with_its_reasons() -> None:
    """Workers and threads for these steps on this machine: two threads for each request in flight."""
    async with pipeline(worker=IDLE, settings=PipelineSettings()) as served:
        sizing = await served.get("/sizing")
    assert sizing["workers"] >= 1
    assert sizing["threads_per_worker"] * sizing["workers"] == 2 * sizing["concurrency"]
    assert "decides" in sizing["reasons"][0]
    assert sizing["thread_bytes"] >= 4096


async def test_figures_name_their_fields() -> None:
    """What dashboards read stays there."""
    expected: dict[str, set[str]] = {
        "/queue-status": {"waiting", "running", "succeeded", "failed", "limit", "free", "oldest_waits", "workers"},
        "/database/stats": {"engine", "durability", "requests", "by_status", "size_bytes", "retention"},
        "/thread-efficiency": {"in_use", "total", "percent", "alive", "in_flight", "slots", "advice", "processes"},
        "/metrics/series": {"points", "kept_s"},
    }
    async with pipeline(worker=IDLE) as served:
        for path, fields in expected.items():
            answer: dict[str, Any] = await served.get(path)
            assert fields <= answer.keys(), path

"""A job's events: from every place, without gap or repeat, for slow readers, and through the gateway's drain."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from serving_support import ENGINES, QUICK, Block, Stage, blocks_of, stage, turn, until

from ropeway.domain.clock import SystemClock
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.lease import Outcome
from ropeway.engines.hints import Listener
from ropeway.serving import GatewayOptions
from ropeway.testing.faults import FaultyEngine, scripted


def options(**changes: Any) -> GatewayOptions:
    return msgspec.structs.replace(QUICK, **changes)


async def a_story(s: Stage) -> str:
    """A job with two attempts, deltas, progress and an end."""
    job_id = await s.submit("free", {"q": 1}, retry={"max_attempts": 3, "base_s": 0})
    first = await s.hand.take()
    await s.hand.emit(first, ("output.delta", {"index": 0, "delta": "Hel"}), ("progress", {"fraction": 0.5}))
    await s.hand.end(first, _retry())
    second = await s.hand.take()
    await s.hand.emit(second, *[("output.delta", {"index": n, "delta": f"w{n}"}) for n in range(5)])
    await s.hand.succeed(second, {"text": "Hello"})
    return job_id


def _retry() -> Outcome:
    error = '{"code":"task_error","message":"once more"}'
    return Outcome("retry", error=error, delay_ms=0)


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_whole_log_comes_in_order_and_ends_with_the_job(engine: str, tmp_path: Path) -> None:
    """From `job.queued` to the terminal event, whose data is the final job."""
    async with stage(engine, tmp_path) as s:
        job_id = await a_story(s)
        async with s.call("GET", f"/v1/jobs/{job_id}/events", headers={"accept": "text/event-stream"}) as call:
            blocks = await call.all_blocks()
    assert call.answer_headers["content-type"] == "text/event-stream"
    assert call.answer_headers["cache-control"] == "no-cache, no-transform"
    assert call.answer_headers["x-accel-buffering"] == "no"
    assert [block.event for block in blocks] == [
        "job.queued", "job.started", "output.delta", "progress", "job.retrying",
        "job.started", "output.reset", *["output.delta"] * 5, "job.succeeded",
    ]  # fmt: skip
    assert [block.retry for block in blocks] == [1000, *[None] * 12], "`retry:` stands in the first whole block alone"
    assert all(block.id == block.data["id"] for block in blocks)
    assert all(block.data["job_id"] == job_id for block in blocks)
    end = blocks[-1].data["data"]
    assert (end["id"], end["state"], end["output"], end["object"]) == (job_id, "succeeded", {"text": "Hello"}, "job")
    assert end["last_event_id"] == blocks[-1].id


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("by", ["header", "query"])
async def test_a_reader_resumes_from_every_event(engine: str, by: str, tmp_path: Path) -> None:
    """Strictly after the id it had, the rest comes: no gap, no repeat. Past the end it is 204."""
    async with stage(engine, tmp_path) as s:
        job_id = await a_story(s)
        path = f"/v1/jobs/{job_id}/events"
        async with s.call("GET", path) as call:
            whole = await call.all_blocks()
        for n, block in enumerate(whole):
            place = {"headers": {"last-event-id": block.id}} if by == "header" else {"query": f"after={block.id}"}
            async with s.call("GET", path, **place) as call:
                rest = await call.all_blocks()
            assert [b.id for b in rest] == [b.id for b in whole[n + 1 :]]
            assert call.status == (200 if rest else 204)
        async with s.call(
            "GET", path, query=f"after={whole[0].id}", headers={"last-event-id": whole[3].id or ""}
        ) as call:
            assert (await call.all_blocks())[0].id == whole[4].id, "Last-Event-ID wins"


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_live_reader_gets_each_event_as_it_comes(engine: str, tmp_path: Path) -> None:
    """The reader is there before the worker; nothing polls."""
    async with stage(engine, tmp_path, options(recheck_s=600.0, heartbeat_s=600.0)) as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}/events") as call:
            assert [b.event for b in await call.blocks(1)] == ["job.queued"]
            work = await s.hand.take()
            assert [b.event for b in await call.blocks(2)][1:] == ["job.started"]
            for n in range(10):
                await s.hand.emit(work, ("output.delta", n))
                blocks = await call.blocks(3 + n)
                assert (blocks[-1].event, blocks[-1].data["data"], blocks[-1].data["seq"]) == ("output.delta", n, n + 1)
            await s.hand.succeed(work, "end")
            assert (await call.all_blocks())[-1].event == "job.succeeded"
        assert s.waiting == 0


class Deaf(FaultyEngine):
    """An engine none of whose hints arrive."""

    def listen(self, *topics: str) -> Listener:
        return super().listen("nothing")


async def test_an_event_whose_hint_was_lost_comes_all_the_same() -> None:
    """A hint is never truth: a reader looks again by itself."""
    async with stage(options=options(recheck_s=0.01), wrap=lambda engine: Deaf(engine, scripted())) as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}/events") as call:
            await call.blocks(1)
            await s.hand.succeed(await s.hand.take(), 1)
            assert [b.event for b in await call.all_blocks()] == ["job.queued", "job.started", "job.succeeded"]


async def test_what_no_hint_told_of_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """An event, or an end, that a waiter finds by looking all the same: the log names the topic that was silent."""
    caplog.set_level("INFO", "ropeway.serving")
    clock = LateClock()
    deaf = stage(options=options(recheck_s=0.01), wrap=lambda engine: Deaf(engine, scripted()), clock=clock)
    async with deaf as s:
        job_id = await s.submit()
        work = await s.hand.take()
        async with s.call("GET", f"/v1/jobs/{job_id}/events") as call:
            await call.blocks(2)
            waiting = asyncio.create_task(s.http.get(f"/v1/jobs/{job_id}", params={"wait": "60"}))
            await until(lambda: s.waiting == 2)
            clock.late_ms = 7_000
            await s.hand.succeed(work, 1)
            assert (await call.all_blocks())[-1].event == "job.succeeded"
            assert (await waiting).json()["state"] == "succeeded"
    told = sorted(record.getMessage() for record in caplog.records if "no hint" in record.getMessage())
    assert [line.partition(" came: ")[0] for line in told] == [f"no hint on end:{job_id}", f"no hint on job:{job_id}"]
    assert "its end (succeeded) was found by looking all the same, after 7." in told[0]


class LateClock(SystemClock):
    """As if everything in the engine were some time ago."""

    late_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.late_ms


async def test_lines_of_json_carry_the_same_envelopes() -> None:
    """`Accept: application/x-ndjson`."""
    async with stage() as s:
        job_id = await a_story(s)
        path = f"/v1/jobs/{job_id}/events"
        lines = (await s.http.get(path, headers={"accept": "application/x-ndjson"})).content.splitlines()
        async with s.call("GET", path) as call:
            assert [msgspec.json.decode(line) for line in lines] == [b.data for b in await call.all_blocks()]


async def test_only_the_types_asked_for_come() -> None:
    """The stream ends with the log all the same; a resume that has nothing left to tell is 204."""
    async with stage() as s:
        job_id = await a_story(s)
        path = f"/v1/jobs/{job_id}/events"
        async with s.call("GET", path, query="types=progress,output.reset") as call:
            blocks = await call.all_blocks()
        assert [block.event for block in blocks] == ["progress", "output.reset"]
        async with s.call("GET", path, query=f"types=progress&after={blocks[-1].id}") as call:
            await call.done()
        assert call.status == 204


async def test_without_follow_it_ends_where_the_log_ends_now() -> None:
    """`follow=0`: what there is, without waiting."""
    async with stage() as s:
        job_id = await s.submit()
        work = await s.hand.take()
        await s.hand.emit(work, *[("output.delta", n) for n in range(500)])
        answer = await s.http.get(f"/v1/jobs/{job_id}/events?follow=0", headers={"accept": "application/x-ndjson"})
        events = [msgspec.json.decode(line) for line in answer.content.splitlines()]
        assert [event["data"] for event in events[2:]] == list(range(500))
        rest = await s.http.get(f"/v1/jobs/{job_id}/events?follow=0&after={events[-1]['id']}")
        assert (rest.status_code, rest.content) == (200, b"")


async def test_data_on_several_lines_stays_one_event() -> None:
    """A worker's JSON may be written over many lines, and its type may be anything: neither breaks the framing."""
    async with stage() as s:
        job_id = await s.submit()
        work = await s.hand.take()
        await s.hand.emit_text(
            work,
            ("output.delta", '{\n  "a": 1,\r\n  "b": "x\\ny"\n}'),
            ("a\nevent: job.succeeded\ndata: 1\n\n", "null"),
        )
        async with s.call("GET", f"/v1/jobs/{job_id}/events") as call:
            blocks = await call.blocks(4)
        assert (blocks[2].event, blocks[2].data["data"]) == ("output.delta", {"a": 1, "b": "x\ny"})
        assert (blocks[3].event, blocks[3].data["type"]) == ("message", "a\nevent: job.succeeded\ndata: 1\n\n")


async def test_a_foreign_cursor_gets_a_snapshot() -> None:
    """An id that this log never had is not skipped silently."""
    async with stage() as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}/events", query="after=99999999999999-7") as call:
            (block,) = await call.blocks(1)
        assert (block.event, block.data["data"]["state"]) == ("snapshot", "queued")


@pytest.mark.parametrize("after", ["x", "1", "-1-2", "1-2-3", f"{2**63}-1", "1-99999999999999999999", "\u0663-\u0661"])
async def test_an_id_that_is_none_is_refused(after: str) -> None:
    """400 before any stream begins."""
    async with stage() as s:
        answer = await s.http.get(f"/v1/jobs/{await s.submit()}/events", params={"after": after})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


async def test_a_quiet_stream_is_kept_alive_by_one_line() -> None:
    """`: hb` and no blank line: an empty event would crash OpenAI's SDKs."""
    async with stage(options=options(heartbeat_s=0.01)) as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}/events") as call:
            received = await call.until(lambda data: data.count(b": hb\n") >= 3)
            assert received.split(b"\n\n", 1)[1].startswith(b": hb\n: hb\n: hb\n")
            await s.hand.take()
            blocks = await call.blocks(2)
        assert [block.event for block in blocks] == ["job.queued", "job.started"]


async def test_a_slow_reader_gets_everything_and_nothing_is_queued_for_it() -> None:
    """It stands still while a thousand events are written; then it reads them from the log, in a few writes."""
    async with stage() as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}/events") as call:
            await call.blocks(1)
            work = await s.hand.take()
            await call.blocks(2)
            call.flowing.clear()
            for n in range(100):
                await s.hand.emit(work, *[("output.delta", n * 10 + i) for i in range(10)])
                await turn()
            assert call.writes == 4, "the head, two events, and the write that it is stuck in"
            await s.hand.succeed(work, "end")
            call.flowing.set()
            blocks = await call.all_blocks()
        assert [b.data["data"] for b in blocks if b.event == "output.delta"] == list(range(1000))
        assert [b.data["seq"] for b in blocks[1:]] == list(range(len(blocks) - 1))


async def test_a_reader_that_takes_nothing_is_let_go_and_resumes() -> None:
    """After the write deadline its stream ends; the log is where it was."""
    async with stage(options=options(write_deadline_s=0.01)) as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}/events") as call:
            (queued,) = await call.blocks(1)
            call.flowing.clear()
            await s.hand.succeed(await s.hand.take(), 1)
            await call.done()
            assert (call.ended, s.waiting) == (False, 0)
        async with s.call("GET", f"/v1/jobs/{job_id}/events", query=f"after={queued.id}") as call:
            assert [b.event for b in await call.all_blocks()] == ["job.started", "job.succeeded"]


async def test_a_client_that_leaves_is_noticed_at_once() -> None:
    """While nothing happens at all: its reader goes away, the job goes on."""
    async with stage() as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}/events") as call:
            await call.blocks(1)
            call.leave()
            await call.done()
            assert s.waiting == 0
        assert (await s.job(job_id))["state"] == "queued"


async def test_at_the_drain_readers_are_asked_to_come_back() -> None:
    """`reconnect`, without an id, then the end; a new stream is refused; what was being answered is finished."""
    async with stage() as s:
        job_id = await s.submit()
        path = f"/v1/jobs/{job_id}/events"
        async with s.call("GET", path) as call:
            await call.blocks(1)
            assert await s.gateway.drain()
            blocks = await call.all_blocks()
        assert (blocks[-1].event, blocks[-1].id) == ("reconnect", None)
        assert 200 <= blocks[-1].data["after_ms"] < 2000
        async with s.call("GET", path) as call:
            await call.done()
        assert (call.status, msgspec.json.decode(call.received)["code"]) == (503, "draining")
        assert (await s.http.post("/v1/jobs", json={"task": "free"})).json()["code"] == "draining"
        assert (await s.http.get(f"/v1/jobs/{job_id}?wait=60")).status_code == 200, "a wait ends at once"


async def test_a_reader_of_lines_is_asked_back_by_a_line() -> None:
    """The same control, in the same envelope's words."""
    async with stage() as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}/events", headers={"accept": "application/x-ndjson"}) as call:
            await call.until(lambda data: data.endswith(b"\n"))
            await s.gateway.drain()
            lines = [msgspec.json.decode(line) for line in (await call.until(lambda _: False)).splitlines()]
        assert (lines[-1]["type"], "id" in lines[-1]) == ("reconnect", False)


async def test_a_stream_whose_engine_fails_asks_its_reader_back() -> None:
    """The reader resumes when the engine is back: it missed nothing."""
    faulty: list[FaultyEngine] = []

    def wrap(engine: Any) -> Any:
        faulty.append(FaultyEngine(engine, scripted(read=[None, "before"])))
        return faulty[0]

    async with stage(wrap=wrap) as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}/events") as call:
            await call.blocks(1)
            await s.hand.succeed(await s.hand.take(), 1)
            blocks = await call.all_blocks()
            assert [b.event for b in blocks] == ["job.queued", "reconnect"]
        async with s.call("GET", f"/v1/jobs/{job_id}/events", query=f"after={blocks[0].id}") as call:
            assert [b.event for b in await call.all_blocks()] == ["job.started", "job.succeeded"]


async def test_an_engine_that_fails_before_the_stream_begins_is_a_problem() -> None:
    """No 200 is said before something was read."""

    def wrap(engine: Any) -> Any:
        return FaultyEngine(engine, scripted(read=["before"]))

    async with stage(wrap=wrap) as s:
        answer = await s.http.get(f"/v1/jobs/{await s.submit()}/events")
        assert (answer.status_code, answer.json()["code"]) == (503, EngineUnavailable.code)


async def test_a_job_deleted_under_its_reader_ends_the_stream() -> None:
    """There is nothing more to tell."""
    async with stage() as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}/events", query="types=log") as call:
            await until(lambda: s.waiting == 1)
            await s.engine.cancel("default", [job_id], None)  # the reader has no turn between these two
            await s.engine.purge("default", [job_id])
            assert await call.all_blocks() == []
        assert (await s.http.get(f"/v1/jobs/{job_id}/events")).status_code == 404


async def test_a_submit_may_be_answered_with_its_own_events() -> None:
    """`Accept: text/event-stream` on the submit: one request from the question to the answer."""
    async with stage() as s, submitting(s, {"task": "free"}) as call:
        await call.blocks(1)
        await s.hand.succeed(await s.hand.take(), "done")
        blocks = await call.all_blocks()
        assert [block.event for block in blocks] == ["job.queued", "job.started", "job.succeeded"]
        assert call.answer_headers["location"] == f"/v1/jobs/{blocks[0].data['job_id']}"


@pytest.mark.parametrize(("wish", "state"), [("continue", "queued"), ("cancel", "cancelled")])
async def test_what_becomes_of_a_job_whose_submitter_leaves(wish: str, state: str) -> None:
    """It goes on, unless it was submitted with `on_disconnect: cancel`."""
    async with stage() as s, submitting(s, {"task": "free", "on_disconnect": wish}) as call:
        (queued,) = await call.blocks(1)
        call.leave()
        await call.done()
        job = await s.job(queued.data["job_id"])
        assert job["state"] == state
        assert job["cancel_reason"] == ("the client disconnected" if wish == "cancel" else None)


async def test_a_drain_cancels_nothing() -> None:
    """The gateway left, not the client."""
    async with stage() as s, submitting(s, {"task": "free", "on_disconnect": "cancel"}) as call:
        (queued,) = await call.blocks(1)
        await s.gateway.drain()
        await call.done()
        assert (await s.job(queued.data["job_id"]))["state"] == "queued"


async def test_the_next_stream_beyond_the_limit_is_refused() -> None:
    """503 with a time to come back, before anything is submitted."""
    async with stage(options=options(max_streams=1)) as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}/events") as call:
            await call.blocks(1)
            refused = await s.http.get(f"/v1/jobs/{job_id}/events")
            assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")
            assert refused.headers["retry-after"] == "5"
            async with submitting(s, {"task": "free"}) as refused_submit:
                await refused_submit.done()
            assert refused_submit.status == 503
            assert len((await s.http.get("/v1/jobs")).json()["data"]) == 1
        assert (await s.http.get(f"/v1/jobs/{job_id}/events?follow=0")).status_code == 200


async def test_many_readers_of_one_job_each_see_all_of_it() -> None:
    """Each has its own cursor; some come late."""
    async with stage() as s:
        job_id = await s.submit()
        work = await s.hand.take()
        calls = [s.call("GET", f"/v1/jobs/{job_id}/events") for _ in range(20)]
        for n, call in enumerate(calls):
            await call.__aenter__()
            await s.hand.emit(work, ("output.delta", n))
        await s.hand.succeed(work, "end")
        stories = await asyncio.gather(*[call.all_blocks() for call in calls])
        for call in calls:
            await call.__aexit__()
        assert all(story == stories[0] for story in stories)
        assert len(stories[0]) == 23


def submitting(s: Stage, body: dict[str, Any]) -> Any:
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    return s.call("POST", "/v1/jobs", headers=headers, body=msgspec.json.encode(body))


def test_the_parser_of_these_tests_fails_on_an_empty_event() -> None:
    """What crashes an SDK must fail here."""
    assert blocks_of(b"retry: 1\nid: 0-1\ndata: {}\n\n: hb\n") == [Block(data={}, id="0-1", retry=1)]
    with pytest.raises(AssertionError, match="without data"):
        blocks_of(b": hb\n\n")

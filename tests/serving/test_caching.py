"""Results used again, and jobs shared, over HTTP: who is answered with whose job, and whose leaving ends it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from serving_support import ENGINES, QUICK, Hand, Stage, stage, until
from websocket_support import theatre

from ropeway import App, Cache, Client, File, Worker, WorkerOptions
from ropeway.blobs.folder import FolderStore
from ropeway.domain.worker import TaskCard
from ropeway.engines.memory import MemoryEngine
from ropeway.serving import Gateway

HUM = TaskCard("hum", queue="hall", cache=Cache(ttl_s=60, ignore=("mood",)))
PLAIN = TaskCard("plain", queue="hall")
SSE = {"accept": "text/event-stream", "content-type": "application/json"}


@contextlib.asynccontextmanager
async def humming(engine: str = "memory", folder: Path | None = None) -> AsyncIterator[Stage]:
    async with stage(engine, folder) as s:
        await s.hand.announce(HUM, PLAIN)
        yield s


async def ask(s: Stage, task: str = "hum", song: str = "a", **fields: Any) -> httpx.Response:
    return await s.http.post("/v1/jobs", json={"task": task, "input": {"song": song}, **fields})


def told(answer: httpx.Response) -> tuple[int, bool, str | None]:
    """The status, whether it was cached, and what the header says of that."""
    return answer.status_code, answer.json()["cached"], answer.headers.get("cache-status")


NEW = (202, False, None)
JOINED = (202, True, "ropeway; fwd=miss; collapsed")
HIT = (200, True, "ropeway; hit")


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_same_again_is_answered_with_the_job_that_is_there(engine: str, tmp_path: Path) -> None:
    """Under way it is shared, done it is the answer itself; body and header tell, the usage counts, and one job ran."""
    async with humming(engine, tmp_path) as s:
        first = await ask(s)
        second = await ask(s)
        assert (told(first), told(second)) == (NEW, JOINED)
        assert (second.json()["id"], second.json()["joined"]) == (first.json()["id"], 1)
        assert second.headers["location"] == first.headers["location"]
        await s.hand.succeed(await s.hand.take(), "la")
        third = await ask(s)
        assert told(third) == HIT
        assert (third.json()["state"], third.json()["output"]) == ("succeeded", "la")
        assert (await s.job(first.json()["id"]))["cached"] is False
        (row,) = (await s.http.get("/v1/usage")).json()["data"]
        assert (row["task"], row["jobs"], row["amounts"]) == ("hum", 0, {"cache_hits": 1, "cache_joins": 1})


async def test_what_does_not_count_makes_no_difference() -> None:
    """Spacing, the order of members, and those that the task ignores; all else is another job."""
    async with humming() as s:
        first = await s.http.post("/v1/jobs", content='{"task":"hum","input":{"song":"a","key":1}}', headers=JSON)
        spaced = '{ "input": {"key": 1, "song": "a"}, "task": "hum" }'
        for text in (spaced, '{"task":"hum","input":{"song":"a","key":1,"mood":2}}'):
            assert told(await s.http.post("/v1/jobs", content=text, headers=JSON)) == JOINED
        assert told(await ask(s, song="b")) == NEW
        assert first.status_code == 202


JSON = {"content-type": "application/json"}


async def test_a_second_client_gets_the_stream_from_its_start() -> None:
    """Two who submit the same with a stream read the same events, the second those, too, that came before it."""
    async with humming() as s:
        body = b'{"task":"hum","input":{"song":"a"}}'
        async with s.call("POST", "/v1/jobs", headers=SSE, body=body) as first:
            await first.blocks(1)
            held = await s.hand.take()
            await s.hand.emit(held, ("output.delta", {"index": 0, "delta": "la"}))
            await first.blocks(3)
            async with s.call("POST", "/v1/jobs", headers=SSE, body=body) as second:
                told = [block.event for block in await second.blocks(3)]
                assert told == ["job.queued", "job.started", "output.delta"]
                await s.hand.emit(held, ("output.delta", {"index": 0, "delta": "lo"}))
                await s.hand.succeed(held, "lalo")
                streams = [[block.id for block in await call.all_blocks()] for call in (first, second)]
        assert streams[0] == streams[1]
        assert len(streams[0]) == 5
        assert second.answer_headers["cache-status"] == JOINED[2]
        async with s.call("POST", "/v1/jobs", headers=SSE, body=body) as third:
            assert [block.id for block in await third.all_blocks()] == streams[0]
        assert third.answer_headers["cache-status"] == HIT[2]


@pytest.mark.parametrize("first_wish", ["cancel", "continue"])
async def test_who_leaves_takes_the_result_from_nobody(first_wish: str) -> None:
    """Each client's own `on_disconnect` says what its leaving is, whosever job it is; the last one's ends the job."""
    async with humming() as s:
        body = msgspec.json.encode({"task": "hum", "input": {"song": "a"}, "on_disconnect": "cancel"})
        if first_wish == "continue":
            (job_id,) = [(await ask(s)).json()["id"]]
        else:
            async with s.call("POST", "/v1/jobs", headers=SSE, body=body) as call:
                job_id = (await call.blocks(1))[0].data["job_id"]
                assert told(await ask(s)) == JOINED
        async with s.call("POST", "/v1/jobs", headers=SSE, body=body) as call:
            await call.blocks(1)
        job = await s.job(job_id)
        assert (job["state"], job["joined"], job["cancel_requested_at"]) == ("queued", 0, None)
        async with s.call("POST", "/v1/jobs", headers=SSE, body=body) as call:
            await call.blocks(1)
            assert (await s.http.post(f"/v1/jobs/{job_id}/cancel")).json()["joined"] == 0
        assert (await s.job(job_id))["state"] == "cancelled"


async def test_a_cancel_is_one_sharers() -> None:
    """It leaves the job to the others; repeated under its key it counts once; `for_all` is for everybody."""
    async with humming() as s:
        job_id = (await ask(s)).json()["id"]
        for _ in range(3):
            await ask(s)
        path = f"/v1/jobs/{job_id}/cancel"
        for left, key in ((2, "x"), (2, "x"), (1, "y"), (1, "x")):
            answer = await s.http.post(path, headers={"idempotency-key": key})
            assert (answer.status_code, answer.json()["joined"], answer.json()["state"]) == (202, left, "queued")
        answer = await s.http.post(path, json={"for_all": True, "reason": "enough"})
        job = answer.json()
        assert (answer.status_code, job["state"], job["cancel_reason"]) == (200, "cancelled", "enough")
        assert told(await ask(s)) == NEW


async def test_a_shared_job_is_not_deleted_by_force() -> None:
    """One sharer leaves, and is told that the job goes on."""
    async with humming() as s:
        job_id = (await ask(s)).json()["id"]
        await ask(s)
        refused = await s.http.delete(f"/v1/jobs/{job_id}?force=1")
        assert (refused.status_code, refused.json()["code"]) == (409, "job_live")
        assert "shared" in refused.json()["detail"]
        assert (await s.http.delete(f"/v1/jobs/{job_id}?force=1")).status_code == 204


async def test_a_queue_is_purged_whoever_shares_its_jobs() -> None:
    """Who empties a queue means all who wait in it."""
    async with humming() as s:
        job_id = (await ask(s)).json()["id"]
        await ask(s)
        assert (await s.http.post("/v1/queues/hall/purge")).status_code == 200
        assert (await s.job(job_id))["state"] == "cancelled"


@pytest.mark.parametrize(
    "apart",
    [
        {"cache": False},
        {"cache": {"mode": "off"}},
        {"webhook": {"url": "https://hooks.example/x"}},
        {"delay": 5},
        {"queue": "other"},
    ],
    ids=["no", "off", "webhook", "delay", "queue"],
)
async def test_what_must_be_done_for_itself_stands_apart(apart: dict[str, Any]) -> None:
    """Such a submit neither shares a job nor is shared; the next one shares the first's as before."""
    async with humming() as s:
        first = await ask(s)
        alone = await ask(s, **apart)
        assert told(alone) == NEW
        assert alone.json()["id"] != first.json()["id"]
        assert (await ask(s)).json()["id"] == first.json()["id"]


async def test_a_submit_may_ask_for_what_its_task_does_not_declare() -> None:
    """With `true`, or with a time to live of its own; a younger result than there is makes a new job."""
    async with humming() as s:
        assert [told(await ask(s, "plain")) for _ in range(2)] == [NEW, NEW]
        assert told(await ask(s, "plain", cache=True)) == NEW
        assert told(await ask(s, "plain", cache={"ttl": 5})) == JOINED
        for _ in range(3):
            await s.hand.succeed(await s.hand.take(), 1)
        ended_s = time.time()
        assert told(await ask(s, "plain", cache={"ttl": 3600})) == HIT
        await until(lambda: time.time() > ended_s + 0.002)  # the engine's clock counts whole milliseconds
        assert told(await ask(s, "plain", cache={"ttl": 1e-3})) == NEW


async def test_refresh_makes_a_result_anew() -> None:
    """A new job, which those that come after it share."""
    async with humming() as s:
        await ask(s)
        await s.hand.succeed(await s.hand.take(), "old")
        new = await ask(s, cache={"mode": "refresh"})
        assert told(new) == NEW
        assert (await ask(s)).json()["id"] == new.json()["id"]


@pytest.mark.parametrize("cache", [{"ttl": 0}, {"ttl": -1}, {"ttl": 1e12}, {"mode": "perhaps"}, {"age": 1}, 5, "yes"])
async def test_a_wish_that_cannot_be_is_refused(cache: Any) -> None:
    """400, naming the field."""
    async with humming() as s:
        refused = await ask(s, cache=cache)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        assert refused.json()["error"]["param"].startswith("cache")


async def test_many_lines_share_as_one() -> None:
    """In a body of many each line is answered for itself."""
    async with humming() as s:
        lines = b"\n".join(msgspec.json.encode({"task": "hum", "input": {"song": song}}) for song in "aba")
        answer = await s.http.post("/v1/jobs", content=lines, headers={"content-type": "application/x-ndjson"})
        jobs = [msgspec.json.decode(line)["job"] for line in answer.content.splitlines()]
        assert [job["cached"] for job in jobs] == [False, False, True]
        assert jobs[0]["id"] == jobs[2]["id"]


async def test_a_wait_is_for_the_shared_job() -> None:
    """`Prefer: wait` sees the end of the job that another made, and says that it is another's."""
    async with humming() as s:
        await ask(s)
        waiting = asyncio.create_task(
            s.http.post("/v1/jobs", json={"task": "hum", "input": {"song": "a"}}, headers={"prefer": "wait=20"})
        )
        await until(lambda: s.waiting == 1)
        await s.hand.succeed(await s.hand.take(), "la")
        answer = await waiting
        assert (answer.status_code, answer.json()["cached"], answer.json()["output"]) == (200, True, "la")


async def test_an_idempotency_key_wins() -> None:
    """Its repeat is a replay of the job that it was answered with, also when that was another's, and shares no more."""
    async with humming() as s:
        first = await ask(s)
        body, headers = {"task": "hum", "input": {"song": "a"}}, {"idempotency-key": "k"}
        shared = await s.http.post("/v1/jobs", json=body, headers=headers)
        again = await s.http.post("/v1/jobs", json=body, headers=headers)
        assert (told(shared), told(again)) == (JOINED, NEW)
        assert "idempotency-replayed" not in shared.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert [answer.json()["id"] for answer in (shared, again)] == [first.json()["id"]] * 2
        assert again.json()["joined"] == 1


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_socket_leaves_as_often_as_it_came(engine: str, tmp_path: Path) -> None:
    """A client that shares one job twice on one socket gives both shares up when it goes; another's stays."""
    async with theatre(engine, tmp_path) as t:
        hand = Hand(t.engine)
        await hand.announce(HUM)
        async with t.socket() as other:
            job_id = await other.submit("hum", subscribe=False)
            async with t.socket() as socket:
                wish = {"on_disconnect": "cancel"}
                assert await socket.submit("hum", job=wish, subscribe=True) == job_id
                await socket.events(1)
                assert await socket.submit("hum", job=wish, subscribe=True) == job_id
            await until_joined(t.engine, job_id, 0)
            answer = await other.ask("cancel", job_id=job_id)
            assert answer["job"]["cancel_requested_at"] is not None


async def until_joined(engine: Any, job_id: str, joined: int) -> None:
    async with asyncio.timeout(10):
        while (await engine.get("default", [job_id]))[0].joined != joined:  # noqa: ASYNC110 - a row has no event
            await asyncio.sleep(0)


# -- what is in files

app = App()
looks = 0


@app.task(cache=Cache())
async def look(image: File) -> int:
    global looks
    looks += 1
    return image.size


async def test_equal_bytes_are_the_same_input(tmp_path: Path) -> None:
    """A file uploaded twice, under two names, is looked at once; another one is another input."""
    engine = MemoryEngine()
    await engine.open()
    store = FolderStore(tmp_path / "blobs")
    await engine.publish(app.cards)
    gateway = Gateway(engine, QUICK, blobs=store)
    worker = Worker(app, engine, WorkerOptions(upkeep=False), blobs=store)
    running = asyncio.create_task(worker.run())
    async with Client(engine, blobs=store) as client:
        files = [await client.upload(data, filename=name) for data, name in ((b"x", "a"), (b"x", "b"), (b"yy", "c"))]
        jobs = [await client.submit(look, image=file) for file in files]
        assert [job.cached for job in jobs] == [False, True, False]
        assert [await job.result(timeout=10) for job in jobs] == [1, 1, 2]
        transport = httpx.ASGITransport(gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
            body = {"task": "look", "input": {"image": {"$file": files[1].id}}}
            assert told(await http.post("/v1/jobs", json=body)) == HIT
            body["input"] = {"image": {"$file": f"file_{'0' * 32}"}}
            assert (await http.post("/v1/jobs", json=body)).status_code == 422
    assert looks == 2
    worker.drain()
    await running
    await gateway.stop()
    await engine.shut()

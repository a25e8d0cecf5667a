"""The tenant-wide stream for dashboards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from serving_support import ENGINES, Call, Stage, stage, until

from ropeway.domain.event import Cursor


async def reading(s: Stage, call: Call) -> None:
    """Until the feed has taken its first look for this reader."""
    await until(lambda: call.writes > 0)


async def looked(s: Stage) -> None:
    """One look, now: the feed's own come a few times a second."""
    feed = s.gateway._feeds.of("default")
    async with feed._looking:
        await feed.look()


async def ended(s: Stage) -> None:
    """Until nobody looks any more: the next hint finds no reader."""
    await s.submit()
    looker = s.gateway._feeds.of("default")._looker
    assert looker is not None
    async with asyncio.timeout(10):
        await looker


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_becomes_of_jobs_is_told_as_it_is_seen(engine: str, tmp_path: Path) -> None:
    """Each change once, with the job after it; what was before the reader came is not told."""
    async with stage(engine, tmp_path) as s:
        before = await s.submit()
        async with s.call("GET", "/v1/events") as call:
            await reading(s, call)
            job_id = await s.submit(tags=["new"])
            await looked(s)
            first = await s.hand.take()
            assert first.job_id == before
            await s.hand.succeed(first, 1)
            await looked(s)
            await s.http.post(f"/v1/jobs/{job_id}/cancel")
            await looked(s)
            await looked(s)
            blocks = await call.blocks(3)
        told = [(block.event, block.data["job_id"], block.data["data"]["state"]) for block in blocks]
        assert told == [
            ("job.queued", job_id, "queued"),
            ("job.succeeded", before, "succeeded"),
            ("job.cancelled", job_id, "cancelled"),
        ]
        assert blocks[0].data["data"]["tags"] == ["new"]
        assert "input" not in blocks[0].data["data"]
        assert [block.id for block in blocks] == [block.data["id"] for block in blocks]


async def test_a_hint_makes_it_look_by_itself() -> None:
    """Nobody has to ask."""
    async with stage() as s:
        async with s.call("GET", "/v1/events") as call:
            await reading(s, call)
            job_id = await s.submit()
            (block,) = await call.blocks(1)
        assert block.data["job_id"] == job_id


async def test_it_is_narrowed_by_type_queue_and_tag() -> None:
    """As a dashboard's filters want it."""
    async with stage() as s:
        queries = {
            "types": "types=job.started,job.failed",
            "queue": "queue=other",
            "tag": "tag=mine",
        }
        calls = {name: s.call("GET", "/v1/events", query=query) for name, query in queries.items()}
        for call in calls.values():
            await call.__aenter__()
            await reading(s, call)
        one = await s.submit(tags=["mine"])
        two = await s.submit(queue="other")
        await looked(s)
        await s.hand.take()
        await looked(s)
        told = {name: [(b.event, b.data["job_id"]) for b in await call.blocks(1)] for name, call in calls.items()}
        assert told["types"] == [("job.started", one)]
        assert told["queue"][0] == ("job.queued", two)
        assert told["tag"][0] == ("job.queued", one)
        for call in calls.values():
            await call.__aexit__()


async def test_a_reader_resumes_while_another_kept_the_feed_going() -> None:
    """By the id it had last; one that is too old, or another process's, is told to load anew."""
    async with stage() as s:
        async with s.call("GET", "/v1/events") as watcher:
            await reading(s, watcher)
            ids = [await s.submit() for _ in range(3)]
            await looked(s)
            blocks = await watcher.blocks(3)
            async with s.call("GET", "/v1/events", headers={"last-event-id": blocks[0].id or ""}) as call:
                assert [b.data["job_id"] for b in await call.blocks(2)] == ids[1:]
            async with s.call("GET", "/v1/events", query="after=17-1") as call:
                (block,) = await call.blocks(1)
                assert block.event == "snapshot"
                assert block.id == blocks[-1].id
        await ended(s)
        async with s.call("GET", "/v1/events", headers={"last-event-id": blocks[0].id or ""}) as call:
            (block,) = await call.blocks(1)
            assert block.event == "snapshot", "nobody looked in between"


async def test_a_slow_reader_falls_out_of_the_ring_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept for it."""
    monkeypatch.setattr("ropeway.serving.feed.RING_ENTRIES", 10)
    async with stage() as s, s.call("GET", "/v1/events") as call:
        await reading(s, call)
        feed = s.gateway._feeds.of("default")
        call.flowing.clear()
        await s.submit()
        await looked(s)
        await until(lambda: call.writes == 2)
        for _ in range(11):
            await s.submit()
        await looked(s)
        assert not feed.holds(Cursor(feed.end.epoch, 1))
        call.flowing.set()
        blocks = await call.blocks(2)
        assert [block.event for block in blocks[:2]] == ["job.queued", "snapshot"]


async def test_the_last_reader_turns_off_the_light() -> None:
    """Nobody reads, nobody looks."""
    async with stage() as s:
        async with s.call("GET", "/v1/events") as call:
            await reading(s, call)
        assert not s.gateway._feeds.of("default")._readers
        await ended(s)


async def test_a_drain_asks_its_readers_back() -> None:
    """As any stream's."""
    async with stage() as s, s.call("GET", "/v1/events") as call:
        await reading(s, call)
        await s.gateway.drain()
        assert [block.event for block in await call.all_blocks()] == ["reconnect"]

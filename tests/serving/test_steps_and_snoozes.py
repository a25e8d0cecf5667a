"""What readers see of steps and snoozes: that they were, and nothing that is not theirs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from serving_support import Hand, Stage, stage
from websocket_support import theatre

from ropeway import Client
from ropeway.domain.lease import Outcome

SECRET = "what the step returned"
SHOWN = {"name": "fetch", "seconds": 0.25}


async def tell(hand: Hand) -> None:
    """Run the next job: one step, and its end."""
    work = await hand.take()
    await hand.emit(work, ("step.completed", {**SHOWN, "result": SECRET}))
    await hand.succeed(work, "done")


async def by_sse(s: Stage, job_id: str) -> str:
    async with s.call("GET", f"/v1/jobs/{job_id}/events", headers={"accept": "text/event-stream"}) as call:
        return (await call.until(lambda _: False)).decode()


async def by_ndjson(s: Stage, job_id: str) -> str:
    async with s.call("GET", f"/v1/jobs/{job_id}/events", headers={"accept": "application/x-ndjson"}) as call:
        return (await call.until(lambda _: False)).decode()


async def by_client(s: Stage, job_id: str) -> str:
    async with Client(s.engine) as client:
        return json.dumps([event.data async for event in client.events(job_id) if event.type == "step.completed"])


@pytest.mark.parametrize("read", [by_sse, by_ndjson, by_client])
async def test_a_steps_result_stays_inside(read: Callable[[Stage, str], Awaitable[str]]) -> None:
    """A reader is told the step's name and how long it took, and not what it came to."""
    async with stage() as s:
        job_id = await s.submit("free", {"q": 1})
        await tell(s.hand)
        told = (await read(s, job_id)).replace(": ", ":").replace(", ", ",")
    assert '{"name":"fetch","seconds":0.25}' in told
    assert SECRET not in told


async def test_a_socket_tells_no_result_either(tmp_path: Path) -> None:
    """The WebSocket has the same events."""
    async with theatre("memory", tmp_path) as t, t.socket() as socket:
        await socket.submit("free")
        await tell(t.hand)
        events = await socket.events_to_the_end()
    assert [event["data"] for event in events if event["type"] == "step.completed"] == [SHOWN]


async def test_a_snooze_is_told_with_its_reason() -> None:
    """The log says that the attempt snoozed and why; the job's progress does, until it runs again."""
    async with stage() as s:
        job_id = await s.submit("free", {"q": 1})
        await s.hand.end(await s.hand.take(), Outcome("snooze", delay_ms=60_000, detail="not ready"))
        job = await s.job(job_id)
        assert (job["state"], job["attempt"], job["error"]) == ("scheduled", 0, None)
        assert job["progress"] == {"message": "not ready"}
        async with s.call("GET", f"/v1/jobs/{job_id}/events", query="follow=0&types=job.retrying") as call:
            (block,) = await call.all_blocks()
        told = block.data["data"]
        assert (told["reason"], told["attempt"], told["detail"]) == ("snoozed", 1, "not ready")

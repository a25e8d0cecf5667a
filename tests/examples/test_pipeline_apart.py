"""The pipeline on one Valkey: two gateways and three workers, each a process that knows nothing of the others."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from examples.pipeline.load.run import Plan, load
from examples.pipeline.recorder import RECORD_QUEUE
from pipeline_support import PATIENCE_S, eventually

from ropeway.client.sse import SseReader
from servers import Server, free_port

ROOT = Path(__file__).parent.parent.parent
SETTINGS = {"PIPELINE_STEP1_S": "0.2", "PIPELINE_STEP2_S": "0.1", "PIPELINE_MAX_QUEUED": "1000"}

pytestmark = pytest.mark.slow


class Seen(NamedTuple):
    """An event as a reader saw it."""

    id: str
    type: str
    data: Any


class Gateway:
    """One gateway process."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S)

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def answers(self) -> bool:
        assert self.process.returncode is None, "the gateway has ended"
        try:
            return (await self.http.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def follow(self, path: str, after: str | None = None) -> AsyncIterator[Seen]:
        """The events that this gateway streams on one connection, until it ends or breaks."""
        headers = {"accept": "text/event-stream"} | ({} if after is None else {"last-event-id": after})
        reader = SseReader()
        try:
            async with self.http.stream("GET", path, headers=headers, timeout=PATIENCE_S) as stream:
                assert stream.status_code in (200, 204), stream.status_code
                async for chunk in stream.aiter_bytes():
                    for block in reader.feed(chunk):
                        if block.id is not None:
                            yield Seen(block.id, block.event, json.loads(block.data))
        except httpx.TransportError:
            return


class Fleet(NamedTuple):
    """What the test started."""

    first: Gateway
    second: Gateway


@pytest.fixture(name="server")
def make_server() -> Iterator[Server]:
    server = Server().start()
    yield server
    server.delete()


@asynccontextmanager
async def fleet(engine: str, folder: Path) -> AsyncIterator[Fleet]:
    """Two gateways and three workers on this engine; ended one by one, as they were started."""
    log = (folder / "processes.log").open("wb")
    async with AsyncExitStack() as stack:
        stack.enter_context(log)

        async def start(*command: str) -> asyncio.subprocess.Process:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *command,
                "--engine",
                engine,
                cwd=ROOT,
                env=os.environ | SETTINGS,
                stdout=log,
                stderr=log,
            )
            stack.push_async_callback(ended, process)
            return process

        gateways = []
        for _ in range(2):
            port = free_port()
            gateways.append(Gateway(await start("examples.pipeline.gateway", "--port", str(port)), port))
            stack.push_async_callback(gateways[-1].http.aclose)
        for n in range(3):
            sizes = ("--concurrency", "20", "--threads", "40", "--name", f"host{n}")
            await start("ropeway", "worker", "examples.pipeline.tasks:app", *sizes)
        for gateway in gateways:
            await eventually(gateway.answers, "the gateway answers")

        async def all_here() -> bool:
            return len((await gateways[1].get("/queue-status"))["workers"]) == 3

        await eventually(all_here, "three workers are here")
        yield Fleet(*gateways)


async def ended(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, unless it has ended already; then wait."""
    if process.returncode is None:
        process.terminate()
    await process.wait()


async def recording(gateway: Gateway) -> str:
    """The path of the events of the job that records the time series, once there is one."""
    found: list[str] = []

    async def recorded() -> bool:
        jobs = (await gateway.get(f"/v1/jobs?queue={RECORD_QUEUE}"))["data"]
        found[:] = [job["id"] for job in jobs]
        return bool(found)

    await eventually(recorded, "the time series is recorded")
    return f"/v1/jobs/{found[0]}/events"


async def some(events: AsyncIterator[Seen], outputs: int) -> list[Seen]:
    """The events up to so many outputs, or to the end of the stream."""
    seen = []
    async for event in events:
        seen.append(event)
        outputs -= event.type == "output.delta"
        if not outputs:
            break
    return seen


async def test_requests_at_two_gateways_are_done_by_three_workers(server: Server, tmp_path: Path) -> None:
    """What one gateway accepted the other knows; every worker has a share; nothing is lost or done twice."""
    async with fleet(server.url, tmp_path) as (first, second):
        reports = await asyncio.gather(
            *(
                load(Plan(gateway.url, 150, concurrency=10, run_id=run_id), lambda tally: None)
                for gateway, run_id in ((first, "a"), (second, "b"))
            )
        )
        elsewhere = await second.get("/status/a-7")
        stats = await first.get("/database/stats")
        assert all(report.good(allow_refused=False) for report in reports), reports
        assert [report.succeeded for report in reports] == [150, 150]
        assert set.union(*(set(report.workers) for report in reports)) == {"host0-1", "host1-1", "host2-1"}
        assert elsewhere["status"] == "succeeded"
        assert (stats["requests"], stats["durability"], stats["engine"]) == (300, "disk", "redis")


async def test_a_stream_that_broke_with_its_gateway_goes_on_at_the_other(server: Server, tmp_path: Path) -> None:
    """kill -9 of the gateway under a live stream; with Last-Event-ID the other goes on, without a gap or a repeat."""
    async with fleet(server.url, tmp_path) as (first, second):
        path = await recording(first)
        begun = await some(first.follow(path), 2)
        first.process.kill()
        begun += [event async for event in first.follow(path, begun[-1].id)]
        resumed = await some(second.follow(path, begun[-1].id), 2)
        again = await some(second.follow(path), sum(event.type == "output.delta" for event in (*begun, *resumed)))
        assert [event.id for event in (*begun, *resumed)] == [event.id for event in again]
        assert (*begun, *resumed) == tuple(again)
        assert len(again) == len({event.id for event in again})


async def test_a_request_in_flight_is_followed_from_one_gateway_to_the_other(server: Server, tmp_path: Path) -> None:
    """A request's own log: begun at the gateway that took it, ended at the other, which is asked under its id."""
    async with fleet(server.url, tmp_path) as (first, second):
        await second.http.post("/v1/queues/pipeline/pause")
        taken = await first.http.post("/process", json={"id": "order-1", "text": "hello big world"})
        path = f"/v1/jobs/{taken.json()['job_id']}/events"
        begun = [await anext(first.follow(path))]
        first.process.kill()
        await second.http.post("/v1/queues/pipeline/resume")
        rest = [event async for event in second.follow(path, begun[-1].id)]
        whole = [event async for event in second.follow(path)]
        assert [event.type for event in (*begun, *rest)] == ["job.queued", "job.started", "job.succeeded"]
        assert [*begun, *rest] == whole
        assert (await second.get("/status/order-1"))["result"].endswith("3 words, the longest is 'hello'")

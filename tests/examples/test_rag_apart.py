"""The RAG example on one Valkey: a gateway and two workers, each a process of its own, and one of them is killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from examples.gateway.upstream import Rhythm, simulated
from examples.rag.settings import SHIPPED, RagSettings
from examples.rag.store import open_store
from test_rag_real import missing

from ropeway.domain.job import DEFAULT_TENANT
from servers import Server, free_port

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 60.0
FIRST = ("drive.md", "tickets.md")
QUESTIONS = [f"How strong is the main motor, in case {n}?" for n in range(6)]
SLOWLY = Rhythm(words=60, first_s=0.1, word_s=0.05)  # 3 s: time to be killed in

WORKERS = {"one-1", "two-1"}  # `ropeway worker` starts a process for each, and another when it dies

pytestmark = pytest.mark.slow


class Site:
    """The gateway."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def workers(self) -> dict[str, int]:
        """The processes of the workers that are here, by name."""
        workers = (await self.http.get("/v1/workers")).json()["data"]
        return {worker["name"]: worker["pid"] for worker in workers}

    async def is_whole(self) -> bool:
        """Whether the gateway answers, and both workers are at work."""
        try:
            return (await self.workers()).keys() == WORKERS
        except httpx.TransportError:
            return False

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = await self.http.post(path, json=body)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def events(self, told: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The events of a job, live, to its end."""
        headers = {"accept": "application/x-ndjson"}
        async with self.http.stream("GET", told["events_url"], headers=headers) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("{"):
                    yield json.loads(line)

    async def ended(self, told: dict[str, Any]) -> dict[str, Any]:
        """How a job stands once it has ended."""
        async for _ in self.events(told):
            pass
        return dict((await self.http.get(told["status_url"])).json())


@asynccontextmanager
async def site(engine: str, own: RagSettings, home: Path) -> AsyncIterator[Site]:
    """A gateway and two workers on an engine, each started as the README has it."""
    port = free_port()
    environ = {**os.environ, **own.environment()}
    gateway = ("-m", "examples.rag.gateway", "--engine", engine, "--port", str(port))
    commands: dict[str, tuple[str, ...]] = {"gateway": gateway}
    for name in ("one", "two"):
        commands[name] = ("-m", "ropeway", "worker", "examples.rag.tasks:app", "--name", name, "--engine", engine)
    started: dict[str, asyncio.subprocess.Process] = {}
    try:
        for name, command in commands.items():
            with (home / f"{name}.log").open("wb") as said:
                started[name] = await asyncio.create_subprocess_exec(
                    sys.executable, *command, cwd=ROOT, env=environ, stdout=said, stderr=said
                )
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as http:
            async with asyncio.timeout(PATIENCE_S):
                while not await Site(http).is_whole():  # noqa: ASYNC110 - over HTTP nobody tells us when
                    await asyncio.sleep(0.05)
            yield Site(http)
    finally:
        for process in started.values():
            if process.returncode is None:
                process.terminate()
        for process in started.values():
            await process.wait()


@pytest.mark.skipif(bool(missing()) and "CI" not in os.environ, reason=missing())
async def test_a_worker_that_is_killed_loses_nothing(home: Path) -> None:
    """`kill -9` in the midst of answers and of an ingestion: another worker goes on with all of it.

    The readers of an answer that was under way see the next attempt, and its words from the first one on; of the
    folder every passage is stored, and found.
    """
    documents = home / "documents"
    for name in FIRST:
        (documents / "first").mkdir(parents=True, exist_ok=True)
        shutil.copy(SHIPPED / name, documents / "first")
    server = Server().start()
    try:
        async with simulated(SLOWLY) as (upstream, _):
            own = RagSettings(str(documents), f"sqlite:{home}/passages.db", "simulated", upstream, threads=1)
            async with site(f"{server.url}/0?prefix=rag", own, home) as s:
                assert (await s.ended(await s.post("/ingest", folder="first")))["ingested"]["passages"] == 6
                shutil.copytree(SHIPPED, documents / "rest")
                asked = [await s.post("/chat", query=question) for question in QUESTIONS]
                ingest = await s.post("/ingest", folder="rest")
                await _kill_in_mid_answer(s, asked[0])
                for told in asked:
                    status = await s.ended(told)
                    assert status["status"] == "succeeded", status
                    assert len(status["answer"].split()) == SLOWLY.words
                    assert status["sources"][0]["document"] == "first/drive.md"
                status = await s.ended(ingest)
                assert (status["status"], status["ingested"]["passages"]) == ("succeeded", 48), status
        store = open_store(own.store)
        whole = store.documents(DEFAULT_TENANT)
        assert len(whole) == len(FIRST) + len(list(SHIPPED.glob("*.md")))
        assert sum(len(store.known(DEFAULT_TENANT, name)) for name in whole) == 6 + 48
        store.close()
    finally:
        server.delete()


async def _kill_in_mid_answer(s: Site, told: dict[str, Any]) -> None:
    """Kill who answers, once some words are there; then see the next attempt begin, and end well."""
    pids = await s.workers()
    seen: list[dict[str, Any]] = []
    killed = None
    async for event in s.events(told):
        seen.append(event)
        if killed is None and len(_words(seen)) >= 3:
            killed = next(one["data"]["worker"] for one in reversed(seen) if one["type"] == "job.started")
            os.kill(pids[killed], signal.SIGKILL)
    assert [one["attempt"] for one in seen if one["type"] == "job.started"] == [1, 2]
    reasons = [one["data"]["reason"] for one in seen if one["type"] == "job.retrying"]
    assert reasons == ["worker_lost"]
    reset = next(n for n, one in enumerate(seen) if one["type"] == "output.reset")
    assert len(_words(seen[reset:])) == SLOWLY.words
    assert seen[-1]["type"] == "job.succeeded"


def _words(events: list[dict[str, Any]]) -> list[str]:
    """What was streamed."""
    return "".join(one["data"]["delta"] for one in events if one["type"] == "output.delta").split()

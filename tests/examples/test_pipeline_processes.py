"""The pipeline as it is started: a supervisor, a gateway and workers, on one file; loaded, killed and restarted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from examples.pipeline.load.report import Report
from examples.pipeline.load.run import Plan, load
from pipeline_support import PATIENCE_S, eventually

ROOT = Path(__file__).parent.parent.parent
START_LIMIT_S = 60.0

pytestmark = pytest.mark.slow


class Served:
    """A pipeline in processes of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.AsyncClient(base_url=url, timeout=PATIENCE_S)

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def load(self, requests: int, run_id: str = "r", **plan: Any) -> Report:
        return await load(Plan(self.url, requests, concurrency=20, run_id=run_id, **plan), lambda tally: None)

    async def pids(self) -> dict[str, int]:
        processes = (await self.get("/thread-efficiency"))["processes"]
        return {process["name"]: process["pid"] for process in processes}

    async def workers_are_here(self, count: int) -> None:
        async def here() -> bool:
            return len((await self.get("/queue-status"))["workers"]) == count

        await eventually(here, f"{count} workers are here")


@asynccontextmanager
async def served(folder: Path, *flags: str, workers: int = 2, threads: int = 50) -> AsyncIterator[Served]:
    """Start it, wait until it says that it serves, and stop it at the end: it must drain and end well."""
    command = [sys.executable, "-m", "examples.pipeline", "--engine", f"sqlite:///{folder}/pipeline.db", "--port", "0"]
    sizes = ["--workers", str(workers), "--threads", str(threads), "--step1", "0.2", "--step2", "0.1"]
    log = folder / "server.log"
    with log.open("ab") as said:
        process = await asyncio.create_subprocess_exec(
            *command, *sizes, *flags, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=said
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_LIMIT_S):
            line = await process.stdout.readline()
        assert line, log.read_text()[-4000:]
        server = Served(json.loads(line)["url"])
        async with server.http:
            await server.workers_are_here(workers)
            yield server
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(START_LIMIT_S):
            assert await process.wait() == 0, log.read_text()[-4000:]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_everything_that_is_submitted_is_done(tmp_path: Path) -> None:
    """200 requests on 2 workers x 50: all accepted, all done once, by both workers, with nothing lost."""
    async with served(tmp_path) as server:
        report = await server.load(200, together=True)
        stats = await server.get("/database/stats")
    assert report.good(allow_refused=False), report
    assert (report.accepted, report.succeeded, report.lost) == (200, 200, 0)
    assert report.workers.keys() == {"worker-1", "worker-2"}
    assert stats["by_status"]["succeeded"] == stats["requests"] == 200
    assert report.peak_in_flight <= 100


async def test_a_restart_keeps_the_history_and_finishes_the_rest(tmp_path: Path) -> None:
    """Stopped with requests in line: the next start knows those that are done, and does those that were not."""
    async with served(tmp_path) as server:
        await server.load(10, "done")
        before = await server.get("/status/done-7")
        await server.http.post("/v1/queues/pipeline/pause")
        waiting = (await server.http.post("/process", json={"text": "still here", "id": "waiting"})).json()
    async with served(tmp_path) as server:
        assert await server.get("/status/done-7") == before
        assert (await server.get("/status/waiting"))["status"] == "queued"
        await server.http.post("/v1/queues/pipeline/resume")
        job = await server.get(f"/v1/jobs/{waiting['job_id']}?wait=30")
        series = (await server.get("/metrics/series?seconds=600"))["points"]
    assert job["state"] == "succeeded"
    assert {point["processed"] for point in series} >= {10}


async def test_beyond_the_limit_requests_are_refused_and_none_is_lost(tmp_path: Path) -> None:
    """5 for each of 2 workers may wait: of 30 submitted at once 10 are accepted and done, 20 answered 503."""
    async with served(tmp_path, "--max-queued", "5") as server:
        await server.http.post("/v1/queues/pipeline/pause")
        answers = await asyncio.gather(*(server.http.post("/process", json={"text": f"t {n}"}) for n in range(30)))
        accepted = [answer.json()["job_id"] for answer in answers if answer.status_code == 202]
        refused = [answer for answer in answers if answer.status_code == 503]
        queue = await server.get("/queue-status")
        await server.http.post("/v1/queues/pipeline/resume")
        jobs = await asyncio.gather(*(server.get(f"/v1/jobs/{job_id}?wait=30") for job_id in accepted))
        stats = await server.get("/database/stats")
    assert (len(accepted), len(refused)) == (10, 20)
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    assert (queue["waiting"], queue["free"]) == (10, 0)
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert stats["requests"] == 10


async def test_killed_processes_lose_nothing(tmp_path: Path) -> None:
    """kill -9 of a worker and of the gateway, both at work: clients repeat what was not answered, and all is done."""
    async with served(tmp_path) as server:
        pids = await server.pids()

        async def at_work() -> bool:
            return bool((await server.get("/queue-status"))["running"] >= 20)

        loading = asyncio.create_task(server.load(400))
        await eventually(at_work, "requests are in flight")
        os.kill(pids["worker-1"], signal.SIGKILL)
        os.kill(pids["gateway"], signal.SIGKILL)
        report = await loading

        async def comes_back() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await server.pids()).keys() == pids.keys()
            return False

        await eventually(comes_back, "both were started again")
        after = await server.pids()
    assert report.good(allow_refused=False), report
    assert report.succeeded == 400
    assert after["gateway"] != pids["gateway"]
    assert after["worker-1"] != pids["worker-1"]


async def test_in_memory_it_is_one_process(tmp_path: Path) -> None:
    """`--engine memory:` serves the same routes without a file."""
    async with served(tmp_path, "--engine", "memory:", workers=1) as server:
        report = await server.load(60)
        stats = await server.get("/database/stats")
    assert report.good(allow_refused=False), report
    assert stats["engine"] == "memory"
    assert stats["size_bytes"] is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--engine", "redis://127.0.0.1/first"), "URL"),
        (("--engine", "nonsense"), "names no engine"),
        (("--host", "0.0.0.0"), "--insecure"),
        (("--threads", "0"), "--threads"),
        (("--mode", "magic"), "--mode"),
        (("--step1", "-1"), "--step1"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_a_wrong_setting_is_told_in_a_line(flags: tuple[str, str], said: str, tmp_path: Path) -> None:
    """Exit code 2, and the remedy; no traceback."""
    command = [sys.executable, "-m", "examples.pipeline", "--engine", f"sqlite:///{tmp_path}/p.db", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START_LIMIT_S)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_load_test_tells_when_nobody_serves() -> None:
    """Exit code 2, and what to start."""
    command = [sys.executable, "-m", "examples.pipeline.load", "--url", "http://127.0.0.1:9", "--requests", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START_LIMIT_S)
    assert done.returncode == 2
    assert "python -m examples.pipeline" in done.stderr

"""What is told in confidence is in no log: prompts, keys, headers and outputs, on every path that fails too."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
from door_support import Door, opened

CANARY = "c4naryPr0mpt"
HEADER = "c4naryHeader"

# What is sent, each with the canary somewhere in it.
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/jobs", {"json": {"task": "greet", "input": {"name": CANARY}}}),
    ("POST", "/v1/jobs", {"json": {"task": "tell", "input": {"text": f"{CANARY} {CANARY}"}}}),
    ("POST", "/v1/jobs", {"json": {"task": "break_down", "input": {"text": CANARY}}}),
    ("POST", "/v1/jobs", {"json": {"task": "greet", "input": {"nam": CANARY}}}),
    ("POST", "/v1/jobs", {"json": {"task": "greet", "input": CANARY}}),
    ("POST", "/v1/jobs", {"json": {"task": "wait", "metadata": {"k": CANARY}, "tags": [CANARY]}}),
    ("POST", "/v1/jobs", {"json": {"task": "wait", CANARY: 1}}),
    ("POST", "/v1/jobs", {"content": f'{{"task": "{CANARY}'.encode(), "headers": {"content-type": "application/json"}}),
    ("POST", "/v1/jobs", {"content": CANARY.encode(), "headers": {"content-type": "text/plain"}}),
    ("POST", "/v1/jobs", {"json": {"task": "wait"}, "headers": {"idempotency-key": CANARY}}),
    ("POST", "/v1/jobs/job_x/cancel", {"json": {"reason": CANARY}}),
    ("GET", f"/v1/jobs?tag={CANARY}", {}),
    ("GET", f"/v1/jobs?cursor={CANARY}", {}),
    ("GET", f"/v1/jobs/job_x?token={CANARY}", {}),
    ("GET", f"/v1/jobs/{CANARY}", {}),
    ("GET", f"/{CANARY}", {}),
    ("GET", "/v1/jobs", {"headers": {"cookie": CANARY, "x-secret": CANARY, "traceparent": CANARY}}),
    (
        "POST",
        "/v1/chat/completions",
        {"json": {"model": "parrot", "messages": [{"role": "user", "content": CANARY}]}},
    ),
    (
        "POST",
        "/v1/chat/completions",
        {"json": {"model": "parrot", "stream": True, "messages": [{"role": "user", "content": CANARY}]}},
    ),
    ("POST", "/v1/chat/completions", {"json": {"model": "nobody", "messages": [{"role": "user", "content": CANARY}]}}),
    ("POST", "/v1/responses", {"json": {"model": "parrot", "input": CANARY}}),
    ("POST", "/v1/embeddings", {"json": {"model": "nobody", "input": CANARY}}),
]


async def test_no_log_tells_a_prompt_a_key_or_a_header(tmp_path: Path) -> None:
    """Over every path, with a key and with a wrong one: the log, at its most talkative, has none of it."""
    async with opened(tmp_path, max_wait_s=5.0, call_wait_s=5.0) as door:
        told = [await _play(door, door.keys["acme"]), await _play(door, f"rw_{HEADER}")]
        assert 200 in told[0]
        assert set(told[1]) <= {400, 401, 403, 404, 405}
        await _settled(door)
        log = door.log.read_text()
        assert "is ready" in log, "else nothing would be proved"
        for secret in (CANARY, HEADER, *door.keys.values()):
            assert secret not in log, _around(log, secret)


async def test_no_fault_of_ours_tells_what_it_was_about(tmp_path: Path) -> None:
    """The store taken away under it: 5xx answers say that they are, and neither why nor where; the log has no input."""
    async with opened(tmp_path, keys=False, worker=False) as door, httpx.AsyncClient(base_url=door.url) as http:
        await http.post("/v1/jobs", json={"task": "wait", "input": {"text": CANARY}})
        for name in ("jobs.db", "jobs.db-wal"):
            (tmp_path / name).write_bytes(b"not a database any more" * 10_000)
        answers = []
        for _ in range(20):  # what is in memory still answers: a write makes those who read look at the file again
            answers.append(await http.post("/v1/jobs", json={"task": "wait", "input": {"text": CANARY}}))
            answers += [await http.get("/v1/jobs"), await http.get("/v1/jobs/job_x"), await http.get("/v1/stats")]
        failed = [answer for answer in answers if answer.status_code >= 500]
        assert failed
        for answer in failed:
            assert answer.headers["content-type"] == "application/problem+json"
            for inside in ("Traceback", 'File "', ".py", "SELECT", "INSERT", str(tmp_path), CANARY):
                assert inside not in answer.text, answer.text
        assert CANARY not in door.log.read_text()


async def test_a_worker_that_dies_takes_no_prompt_into_the_log(tmp_path: Path) -> None:
    """Killed in the middle of a job: what it ran is in no log of those who outlive it."""
    async with opened(tmp_path, keys=False) as door:
        async with httpx.AsyncClient(base_url=door.url) as http:
            with contextlib.suppress(httpx.TransportError):  # the door and its worker are one process here
                await http.post("/v1/jobs", json={"task": "die", "input": {"text": CANARY}})
        async with asyncio.timeout(30):
            await door.process.wait()
        assert door.process.returncode != 0
        async with _again(tmp_path) as second, httpx.AsyncClient(base_url=second.url) as http:
            assert len((await http.get("/v1/jobs")).json()["data"]) == 1
            assert CANARY not in second.log.read_text()


def _again(folder: Path) -> Any:
    return opened(folder, keys=False, worker=False)


async def _play(door: Door, key: str) -> list[int]:
    headers = {"authorization": f"Bearer {key}", "prefer": "wait=5"}
    statuses = []
    async with httpx.AsyncClient(base_url=door.url, headers=headers, timeout=30) as http:
        for method, path, arguments in REQUESTS:
            answer = await http.request(method, path, **arguments)
            statuses.append(answer.status_code)
            if answer.status_code in (200, 202) and path == "/v1/jobs" and method == "POST":
                job = answer.json()
                await http.get(f"/v1/jobs/{job['id']}/events?follow=0")
                await http.get(f"/v1/jobs/{job['id']}/result")
    return statuses


async def _settled(door: Door) -> None:
    """Until nothing runs any more: what a job leaves in the log is there."""
    headers = {"authorization": f"Bearer {door.keys['acme']}"}
    async with httpx.AsyncClient(base_url=door.url, headers=headers) as http, asyncio.timeout(30):
        while (await http.get("/v1/jobs?state=running")).json()["data"]:  # noqa: ASYNC110 - another process's jobs
            await asyncio.sleep(0.02)


def _around(log: str, secret: str) -> str:
    at = log.index(secret)
    return log[max(0, at - 300) : at + 300]

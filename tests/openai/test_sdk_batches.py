"""Batches as OpenAI's SDKs see them, and what becomes of them when gateways die, tasks fail or somebody says stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai_support import Sdk, World, each_sdk, newest_sdk, until, user, world

from ropeway.engines.connect import connect
from ropeway.serving import GatewayOptions
from ropeway.serving.openai import batch_lines, batch_run
from servers import shared_server

CHATS = "/v1/chat/completions"
QUICK = GatewayOptions(batch_lease_s=0.4)


def line(number: int, words: str = "one two", url: str = CHATS, **more: Any) -> dict[str, Any]:
    """A line of a batch file."""
    body = {"model": "words", "messages": user(words), **more}
    return {"custom_id": f"line-{number}", "method": "POST", "url": url, "body": body}


@asynccontextmanager
async def a_world(engine: str, folder: Path, gateways: int = 1) -> AsyncIterator[World]:
    """With files beside the engine."""
    if engine == "valkey":
        opened = connect(f"{shared_server().url}?prefix={folder.name}")
        await opened.open()
        async with world(opened, QUICK, gateways, blobs=f"file:{folder}/blobs") as w:
            yield w
        await opened.shut()
        return
    url = "memory:" if engine == "memory" else f"sqlite:///{folder}/jobs.db"
    async with world(url, QUICK, gateways, blobs=f"file:{folder}/blobs") as w:
        yield w


async def ended(sdk: Sdk, w: World, id_: str, *statuses: str) -> dict[str, Any]:
    """The batch, once it has ended, or is in one of these."""
    wanted = statuses or ("completed", "failed", "expired", "cancelled")
    async with asyncio.timeout(60):
        while True:
            batch: dict[str, Any] = await sdk(w.url, "batch_of", id_=id_)
            if batch["status"] in wanted:
                return batch


async def counted(sdk: Sdk, w: World, id_: str, completed: int) -> None:
    """Until so many of its lines are told to be done."""
    async with asyncio.timeout(60):
        while (await sdk(w.url, "batch_of", id_=id_))["request_counts"]["completed"] < completed:
            pass


@pytest.mark.parametrize("engine", ["memory", "sqlite", "valkey"])
@newest_sdk
async def test_a_batch_is_answered_in_files(newest: Sdk, engine: str, tmp_path: Path) -> None:
    """Good lines in the output, bad ones in the errors, each under its own id; the counts add up."""
    lines = [line(n, f"one {n}") for n in range(150)] + [
        line(150, "one !"),
        line(151, model="unknown"),
        line(152, n=2),
    ]
    async with a_world(engine, tmp_path) as w:
        made = await newest(w.url, "batch", lines=lines, endpoint=CHATS, metadata={"who": "me"})
        batch = await ended(newest, w, made["id"])
        output = await newest(w.url, "content", id_=batch["output_file_id"])
        errors = await newest(w.url, "content", id_=batch["error_file_id"])
        job = next(job for job in await w.jobs() if job["id"].endswith(output[0]["id"].removeprefix("batch_req_")))
    assert (made["status"], made["object"], made["metadata"]) == ("validating", "batch", {"who": "me"})
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 153, "completed": 150, "failed": 3}
    assert [entry["custom_id"] for entry in output] == [f"line-{n}" for n in range(150)]
    bodies = [entry["response"]["body"] for entry in output]
    assert [body["choices"][0]["message"]["content"] for body in bodies] == [f"one {n} " for n in range(150)]
    assert all(entry["response"]["status_code"] == 200 and entry["error"] is None for entry in output)
    told = {entry["custom_id"]: entry["response"] for entry in errors}
    codes = {name: (told[name]["status_code"], told[name]["body"]["error"]["code"]) for name in told}
    assert codes == {
        "line-150": (500, "task_error"),
        "line-151": (404, "model_not_found"),
        "line-152": (400, "invalid_request"),
    }
    assert (job["priority"], job["state"]) == ("low", "succeeded")
    assert batch["in_progress_at"] <= batch["finalizing_at"] <= batch["completed_at"]


@each_sdk
async def test_every_sdk_runs_a_batch(sdk: Sdk, tmp_path: Path) -> None:
    """Upload, create, poll, list, download: of embeddings here."""
    lines = [
        {"custom_id": str(n), "method": "POST", "url": "/v1/embeddings", "body": {"model": "lengths", "input": "x" * n}}
        for n in (1, 2, 3)
    ]
    async with a_world("memory", tmp_path) as w:
        ids = [(await sdk(w.url, "batch", lines=lines, endpoint="/v1/embeddings"))["id"] for _ in range(3)]
        batches = [await ended(sdk, w, id_) for id_ in ids]
        listed = await sdk(w.url, "batches")
        output = await sdk(w.url, "content", id_=batches[0]["output_file_id"])
    assert [batch["id"] for batch in listed] == ids[::-1]
    assert [entry["response"]["body"]["data"][0]["embedding"][0] for entry in output] == [1.0, 2.0, 3.0]
    assert batches[0]["error_file_id"] is None


@pytest.mark.parametrize(
    ("lines", "code", "place"),
    [
        ([], "empty_file", None),
        ([line(1), {"custom_id": "x"}], "invalid_json_line", 2),
        ([line(1), line(1)], "duplicate_custom_id", 2),
        ([line(1, url="/v1/embeddings")], "mismatched_url", 1),
        ([{**line(1), "method": "GET"}], "invalid_method", 1),
    ],
)
@newest_sdk
async def test_a_file_with_a_fault_is_no_batch(
    newest: Sdk, lines: list[Any], code: str, place: int | None, tmp_path: Path
) -> None:
    """It fails before any line becomes a job, and says which line is wrong."""
    async with a_world("memory", tmp_path) as w:
        made = await newest(w.url, "batch", lines=lines, endpoint=CHATS)
        batch = await ended(newest, w, made["id"])
        assert await w.jobs() == []
    assert batch["status"] == "failed"
    (fault,) = batch["errors"]["data"]
    assert (fault["code"], fault["line"]) == (code, place)


@newest_sdk
async def test_a_batch_is_cancelled(newest: Sdk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is in the output; what was not sent is nowhere; cancelling it again is harmless."""
    monkeypatch.setattr(batch_lines, "CHUNK_LINES", 2)
    monkeypatch.setattr(batch_run, "WINDOW_LINES", 4)
    lines = [line(0), line(1), *[line(n, "one @go") for n in range(2, 20)]]
    async with a_world("memory", tmp_path) as w:
        made = await newest(w.url, "batch", lines=lines, endpoint=CHATS)
        await until(lambda: "go" in w.gates.reached, "the third line waits")
        running = await newest(w.url, "batch_of", id_=made["id"])
        cancelling = [await newest(w.url, "batch_cancel", id_=made["id"]) for _ in range(2)]
        batch = await ended(newest, w, made["id"])
        output = await newest(w.url, "content", id_=batch["output_file_id"])
        sent = len(await w.jobs())
        late = await newest(w.url, "batch_cancel", id_=made["id"])
    assert (running["status"], running["request_counts"]["total"]) == ("in_progress", 20)
    assert cancelling[0]["status"] == "cancelling"
    assert (batch["status"], late["status"]) == ("cancelled", "cancelled")
    assert [entry["custom_id"] for entry in output] == ["line-0", "line-1"]
    assert batch["request_counts"]["completed"] == 2
    assert batch["request_counts"]["failed"] == sent - 2 < 18


@newest_sdk
async def test_a_batch_out_of_time_expires(newest: Sdk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not done by then is told in the errors."""
    async with a_world("memory", tmp_path) as w:
        lines = [line(0), line(1, "one @never")]
        made = await newest(w.url, "batch", lines=lines, endpoint=CHATS, extra_body={"completion_window": "30m"})
        await until(lambda: "never" in w.gates.reached, "the second line runs")
        await counted(newest, w, made["id"], completed=1)
        monkeypatch.setattr(batch_run.BatchRun, "_now_ms", lambda run: run._parts.clock.now_ms() + 1_800_000)
        batch = await ended(newest, w, made["id"])
        errors = await newest(w.url, "content", id_=batch["error_file_id"])
    assert batch["status"] == "expired"
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert [entry["custom_id"] for entry in errors] == ["line-1"]


@pytest.mark.parametrize("engine", ["memory", "sqlite", "valkey"])
@newest_sdk
async def test_a_batch_ends_though_the_gateway_that_took_it_dies(
    newest: Sdk, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle, leaving everything as it stands: another goes on, no line is lost and none is done twice."""
    monkeypatch.setattr(batch_lines, "CHUNK_LINES", 5)
    monkeypatch.setattr(batch_run, "WINDOW_LINES", 10)
    lines = [line(n, f"one {n}") if n != 12 else line(n, "one @go 12") for n in range(40)]
    async with a_world(engine, tmp_path, gateways=2) as w:
        made = await newest(w.url, "batch", lines=lines, endpoint=CHATS)
        await until(lambda: "go" in w.gates.reached, "a line in the middle waits")
        keepers = [gateway._openai._keeper for gateway in w.gateways]
        (leader,) = [keeper for keeper in keepers if keeper._runs]
        (other,) = [keeper for keeper in keepers if keeper is not leader]
        for task in [*leader._runs.values(), leader._looking]:
            assert task is not None
            task.cancel()  # as at kill -9: it says nothing to anybody
        await until(lambda: bool(other._runs), "the other gateway goes on with it")
        w.gates.open("go")
        batch = await ended(newest, w, made["id"])
        output = await newest(w.url, "content", id_=batch["output_file_id"])
        jobs = await w.jobs()
    assert batch["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
    assert [entry["custom_id"] for entry in output] == [f"line-{n}" for n in range(40)]
    assert len(jobs) == 40
    assert all(job["attempt"] == 1 for job in jobs)


@newest_sdk
async def test_what_cannot_be_a_batch_is_refused(newest: Sdk, tmp_path: Path) -> None:
    """An unknown endpoint, file or window; and a gateway without files says that it has none."""
    async with a_world("memory", tmp_path) as w:
        wrong = (await newest(w.url, "batch", lines=[line(1)], endpoint="/v1/completions"))["error"]
        window = (
            await newest(w.url, "batch", lines=[line(1)], endpoint=CHATS, extra_body={"completion_window": "soon"})
        )["error"]
        unknown = (await newest(w.url, "batch_of", id_="batch_0"))["error"]
    assert (wrong["status_code"], wrong["param"]) == (400, "endpoint")
    assert (window["status_code"], window["param"]) == (400, "completion_window")
    assert (unknown["status_code"], unknown["code"]) == (404, "job_not_found")

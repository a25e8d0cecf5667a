"""Files and jobs over HTTP: inputs that name files, results that are in files, artifacts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from serving_support import QUICK, Stage, stage

from ropeway import App, Client, Context, File, Worker, WorkerOptions, given
from ropeway.blobs.folder import FolderStore
from ropeway.domain.errors import InputInvalid, JobPurged
from ropeway.domain.file import reference
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.engines.memory import MemoryEngine
from ropeway.serving import Gateway

NEVER = f"file_{'0' * 32}"


app = App()


@app.task
async def count(words: list[str], label: str = "words") -> str:
    return f"{len(words)} {label}"


@app.task
async def echo(image: File, others: list[File]) -> int:
    return image.size + sum(other.size for other in others)


@app.task
async def large(size: int) -> str:
    return "x" * size


@app.task
async def picture(ctx: Context = given) -> File:
    return await ctx.artifact("plot.svg", b"<svg/>")


@contextlib.asynccontextmanager
async def whole(folder: Path) -> AsyncIterator[tuple[Client, httpx.AsyncClient, Client]]:
    """A gateway and a worker on one engine: a client of the gateway, plain HTTP, and a client of the engine."""
    engine = MemoryEngine()
    await engine.open()
    store = FolderStore(folder / "blobs")
    await engine.publish(app.cards)
    gateway = Gateway(engine, QUICK, blobs=store)
    worker = Worker(app, engine, WorkerOptions(upkeep=False), blobs=store)
    running = asyncio.create_task(worker.run())
    await worker.started()
    wire = httpx.ASGITransport(gateway)
    async with (
        Client("http://gateway.test", wire=wire) as client,
        httpx.AsyncClient(transport=wire, base_url="http://gateway.test") as http,
    ):
        yield client, http, Client(engine, blobs=store)
    worker.end_now()
    await running
    await gateway.stop()
    await engine.shut()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(blobs=FolderStore(tmp_path / "blobs")) as made:
        await made.engine.publish(app.cards)
        yield made


async def submit(desk: Stage, task: str, fields: Any) -> httpx.Response:
    return await desk.http.post("/v1/jobs", json={"task": task, "input": fields})


async def test_a_file_may_stand_for_a_member(desk: Stage) -> None:
    """Of whatever type the task's schema wants there; the other members are checked as ever."""
    file = (await desk.http.post("/v1/files", content=b'["a", "b"]')).json()["id"]
    taken = await submit(desk, "count", {"words": reference(file)})
    assert taken.status_code == 202, taken.text
    wrong = await submit(desk, "count", {"words": reference(file), "label": 1})
    assert [fault["pointer"] for fault in wrong.json()["errors"]] == ["/label"]
    unknown = await submit(desk, "count", {"words": [], "else": reference(file)})
    assert [fault["pointer"] for fault in unknown.json()["errors"]] == ["/else"]
    deeper = await submit(desk, "count", {"words": ["a", reference(file)]})
    assert [fault["pointer"] for fault in deeper.json()["errors"]] == ["/words/1"]


async def test_a_file_that_is_not_there_is_refused(desk: Stage) -> None:
    """At the submit, by its place; another tenant's is as one that never was."""
    other = Gateway(desk.engine, QUICK, tenant="other", blobs=desk.gateway._submit._parts.kept_files.store)
    transport = httpx.ASGITransport(other)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
        theirs = (await http.post("/v1/files", content=b"[]")).json()["id"]
    for id_ in (theirs, NEVER):
        answer = await submit(desk, "echo", {"image": reference(id_), "others": []})
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"pointer": "/image", "detail": f"no file {id_}"}]
    file = (await desk.http.post("/v1/files", content=b"[]")).json()["id"]
    answer = await submit(desk, "echo", {"image": reference(file), "others": [reference(file), reference(NEVER)]})
    assert answer.json()["errors"][0]["pointer"] == "/others/1"


async def test_a_gateway_without_a_store_takes_no_files() -> None:
    """It says what is missing."""
    async with stage() as desk:
        answer = await submit(desk, "free", {"anything": reference(NEVER)})
        assert (answer.status_code, answer.json()["code"]) == (501, "files_not_kept")


async def test_a_submitted_file_is_held(desk: Stage) -> None:
    """One that will expire stays for the job, and for its retry."""
    file = (await desk.http.post("/v1/files?expires_in=60", content=b"[]")).json()["id"]
    job = (await submit(desk, "count", {"words": reference(file)})).json()["id"]
    await desk.http.post(f"/v1/jobs/{job}/cancel")
    again = (await desk.http.post(f"/v1/jobs/{job}/retry")).json()["id"]
    held = {record.key.id for record in await desk.engine.scan("filehold", DEFAULT_TENANT)}
    assert held == {f"{file}:{job}", f"{file}:{again}"}


async def test_files_all_the_way(tmp_path: Path) -> None:
    """Uploaded, submitted and fetched by a client, of a gateway and of an engine alike."""
    async with whole(tmp_path) as (remote, _, local):
        for client in (remote, local):
            image = await client.upload(b"12345", filename="tile.tif")
            other = await client.upload(b"678", content_type="image/png")
            assert await (await client.submit(echo, image, [other, other])).result(timeout=30) == 11
            words = await client.upload(msgspec.json.encode(["word"] * 200_000))
            assert await (await client.submit("count", words=words)).result(timeout=30) == "200000 words"
            assert (await client.files.get(image)).content_type == "image/tiff"
            assert await client.files.read(other) == b"678"
            listed = [body.id async for body in client.files.list(limit=2)]
            assert set(listed) <= {image.id, other.id, words.id}
            path = await client.download(image, tmp_path)
            assert (path.name, path.read_bytes()) == ("tile.tif", b"12345")
            for file in (image, other, words):
                await client.files.delete(file)
            assert [body async for body in client.files.list()] == []
            with pytest.raises(InputInvalid):
                await (await client.submit("echo", image=image, others=[])).result(timeout=30)


async def test_a_large_result_comes_whole(tmp_path: Path) -> None:
    """From `/result`, and to clients by themselves; the job itself names the file."""
    async with whole(tmp_path) as (remote, http, local):
        job = await remote.submit(large, 300_000)
        assert await job.result(timeout=30) == "x" * 300_000
        assert await local.result(job.id) == "x" * 300_000
        body = (await http.get(f"/v1/jobs/{job.id}")).json()
        answer = await http.get(f"/v1/jobs/{job.id}/result")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == "x" * 300_000
        assert "content-disposition" not in answer.headers
        part = await http.get(f"/v1/jobs/{job.id}/result", headers={"Range": "bytes=0-9"})
        assert (part.status_code, part.content) == (206, b'"xxxxxxxxx')
        await remote.files.delete(body["output"]["$file"])
        gone = await http.get(f"/v1/jobs/{job.id}/result")
        assert (gone.status_code, gone.json()["code"]) == (410, "job_purged")
        with pytest.raises(JobPurged):
            await job.result()


async def test_a_file_as_the_result(tmp_path: Path) -> None:
    """Clients get it in hand; `/result` sends its bytes, inert."""
    async with whole(tmp_path) as (remote, http, local):
        job = await remote.submit(picture)
        file = await job.result(timeout=30)
        assert isinstance(file, File)
        assert await local.result(job.id) == reference(file.id)
        assert await remote.files.read(file) == b"<svg/>"
        answer = await http.get(f"/v1/jobs/{job.id}/result")
        assert (answer.content, answer.headers["content-type"]) == (b"<svg/>", "image/svg+xml")
        assert answer.headers["content-disposition"].startswith("attachment")
        (artifact,) = [event.data async for event in job.events() if event.type == "artifact"]
        assert (await http.get(artifact["url"])).content == b"<svg/>"

"""`/v1/info` and a job's own words: what an accepted job is worth on the engine behind the gateway."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from serving_support import FREE, QUICK, Hand

from ropeway.engines.connect import connect
from ropeway.serving import Gateway
from servers import Server

CANARY = "c4naryS3cret"


@asynccontextmanager
async def gateway_on(url: str) -> AsyncIterator[httpx.AsyncClient]:
    engine = connect(url)
    await engine.open()
    gateway = Gateway(engine, QUICK)
    await Hand(engine).announce(FREE)
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway.test") as http:
            yield http
    finally:
        await gateway.stop()
        await engine.shut()


@pytest.mark.parametrize(
    ("fsync", "options", "durability", "warned"),
    [
        ("always", "", "disk", False),
        ("everysec", "", "window", False),
        ("no", "", "window", True),
        (None, "?durability=memory", "memory", True),
    ],
)
async def test_what_a_202_means_is_told(
    fsync: str | None, options: str, durability: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The same class in the information, in the job, and in the log at the start; with the server's name, and what an
    operator should know; and nowhere the password."""
    file = ("--appendonly", "no") if fsync is None else ("--appendonly", "yes", "--appendfsync", fsync)
    server = Server(*file).start()
    server.ask(f"ACL SETUSER queue on >{CANARY} ~* &* +@all")
    try:
        with caplog.at_level(logging.INFO):
            async with gateway_on(f"redis://queue:{CANARY}@127.0.0.1:{server.port}{options}") as http:
                info = await http.get("/v1/info")
                job = await http.post("/v1/jobs", json={"task": "free", "input": None})
                health = await http.get("/healthz")
    finally:
        server.delete()
    told = info.json()
    assert (told["engine"], told["durability"], bool(told["warnings"])) == ("redis", durability, warned)
    assert told["engine_version"].startswith("valkey 9")
    assert (job.status_code, job.json()["durability"]) == (202, durability)
    assert f"class {durability}" in caplog.text
    assert CANARY not in info.text + job.text + health.text + caplog.text


async def test_an_engine_without_remarks_has_no_warnings() -> None:
    """The list is there, and empty."""
    async with gateway_on("memory:") as http:
        assert (await http.get("/v1/info")).json()["warnings"] == []

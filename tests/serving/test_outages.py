"""A gateway whose engine has failed for good: it takes nothing, says so to balancers, and has its process end."""

from __future__ import annotations

from pathlib import Path

import apsw
import httpx
from serving_support import QUICK, Hand

from ropeway.engines.sqlite import SqliteEngine
from ropeway.engines.sqlite.connection import SqliteOptions
from ropeway.serving import Gateway


async def test_a_disk_that_failed_a_sync_ends_the_gateway(tmp_path: Path) -> None:
    """The submit may have happened; from then on it is not ready, refuses, and asks whoever runs it to end it."""
    failing: list[str] = []

    def at(point: str) -> None:
        if failing and point == "post_commit":
            raise apsw.IOError(failing.pop())

    engine = SqliteEngine(tmp_path / "jobs.db", options=SqliteOptions(failpoint=at))
    await engine.open()
    gateway = Gateway(engine, QUICK)
    told: list[str] = []
    gateway.when_broken = lambda: told.append("end it")
    await Hand(engine).announce()
    transport = httpx.ASGITransport(gateway)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
        assert (await http.get("/readyz")).status_code == 200
        failing.append("EIO")
        first = await http.post("/v1/jobs", json={"task": "free"})
        assert (first.status_code, first.json()["code"]) == (503, "outcome_unknown")
        assert told == []
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
        assert "the disk failed in a commit" in ready.json()["detail"]
        again = await http.post("/v1/jobs", json={"task": "free"})
        assert (again.status_code, again.json()["code"]) == (503, "engine_unavailable")
        assert told == ["end it"], "once"
        assert gateway.broken is not None
    await gateway.stop()
    await engine.shut()

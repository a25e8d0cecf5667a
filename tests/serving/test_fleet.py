"""Queues, tasks, workers, figures and health."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from serving_support import ENGINES, GREET, QUICK, stage

from ropeway.domain.queue import QueueChange
from ropeway.domain.worker import TaskCard
from ropeway.testing import ManualClock
from ropeway.testing.faults import FaultyEngine


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_queue_is_paused_and_resumed(engine: str, tmp_path: Path) -> None:
    """It goes on taking jobs and gives none out meanwhile."""
    async with stage(engine, tmp_path) as s:
        paused = await s.http.post("/v1/queues/hall/pause")
        assert (paused.status_code, paused.json()["paused"]) == (200, True)
        await s.submit()
        queue = (await s.http.get("/v1/queues/hall")).json()
        assert (queue["name"], queue["queued"], queue["paused"]) == ("hall", 1, True)
        assert queue["policy"]["max_depth"] == 1_000_000
        assert queue["oldest_queued_at"] is not None
        with pytest.raises(ValueError, match="not enough values"):
            await s.hand.take()
        resumed = await s.http.post("/v1/queues/hall/resume", json={})
        assert resumed.json()["paused"] is False
        await s.hand.take()
        assert [queue["running"] for queue in (await s.http.get("/v1/queues")).json()["data"]] == [1]


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_purge_cancels_what_waits(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page. What runs goes on; other queues are left alone; nothing is deleted."""
    monkeypatch.setattr("ropeway.serving.fleet.PURGE_PAGE", 4)
    async with stage(engine, tmp_path) as s:
        ids = [await s.submit(delay=0 if n % 2 else 100) for n in range(20)]
        kept = await s.submit(queue="other")
        work = await s.hand.take()
        answer = await s.http.post("/v1/queues/hall/purge")
        assert answer.json() == {"queue": "hall", "cancelled": 19, "more": False}
        states = {job_id: (await s.job(job_id))["state"] for job_id in (ids[0], ids[3], work.job_id, kept)}
        assert states == {ids[0]: "cancelled", ids[3]: "cancelled", work.job_id: "running", kept: "queued"}


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_catalogue_is_told_with_its_schemas(engine: str, tmp_path: Path) -> None:
    """What a form or a client generator needs."""
    async with stage(engine, tmp_path) as s:
        tasks = (await s.http.get("/v1/tasks")).json()["data"]
        assert [task["name"] for task in tasks] == ["free", "greet"]
        greet = (await s.http.get("/v1/tasks/greet")).json()
        assert greet == tasks[1]
        assert greet["input_schema"] == msgspec.json.decode(GREET.input_schema)
        assert (greet["queue"], greet["doc"], greet["defaults"]["max_attempts"]) == ("hall", "Says hello.", 3)


async def test_a_changed_task_is_seen_within_its_time() -> None:
    """And an unknown one is looked up again, once a second at the most."""
    clock = ManualClock()
    async with stage(clock=clock) as s:
        await s.submit("greet", {"name": "a"})
        await s.engine.publish([TaskCard("greet", queue="hall", input_schema='{"type":"integer"}'), TaskCard("late")])
        assert (await s.http.post("/v1/jobs", json={"task": "greet", "input": 5})).status_code == 422
        assert (await s.http.post("/v1/jobs", json={"task": "late"})).status_code == 404
        clock.advance(s=1.0)
        assert (await s.http.post("/v1/jobs", json={"task": "late"})).status_code == 202
        clock.advance(s=QUICK.catalogue_ttl_s)
        assert (await s.http.post("/v1/jobs", json={"task": "greet", "input": 5})).status_code == 202
        assert (await s.http.post("/v1/jobs", json={"task": "greet", "input": {"name": "a"}})).status_code == 422


async def test_the_catalogue_is_read_once_for_many() -> None:
    """However many submits come in its time, known or not."""
    faulty: list[FaultyEngine] = []

    def wrap(engine: Any) -> Any:
        faulty.append(FaultyEngine(engine, lambda method, nth: None))
        return faulty[0]

    async with stage(clock=ManualClock(), wrap=wrap) as s:
        for n in range(20):
            await s.http.post("/v1/jobs", json={"task": "free" if n % 2 else f"unknown{n}"})
        assert faulty[0].calls["tasks"] == 1


async def test_a_schema_that_is_none_is_the_workers_affair() -> None:
    """Its task can be submitted; only JSON is asked for here."""
    async with stage() as s:
        await s.engine.publish([TaskCard("odd", queue="hall", input_schema='{"type":"no such type"}')])
        await s.submit("odd", {"a": 1})


async def test_workers_and_figures() -> None:
    """What an autoscaler reads. A worker's session is not told: who knows it could renew it."""
    async with stage() as s:
        await s.submit(), await s.submit()
        await s.hand.succeed(await s.hand.take(), 1)
        (worker,) = (await s.http.get("/v1/workers")).json()["data"]
        assert (worker["name"], worker["slots"], worker["queues"]) == ("hand", 10, ["hall", "other"])
        assert "s1" not in msgspec.json.encode(worker).decode()
        stats = (await s.http.get("/v1/stats")).json()
        wanted = {"queued": 1, "running": 0, "succeeded": 1, "workers": 1, "slots": 10, "streams": 0}
        assert {name: stats[name] for name in wanted} == wanted
        info = (await s.http.get("/v1/info")).json()
        assert (info["engine"], info["durability"], info["limits"]["batch_lines"]) == ("memory", "memory", 1000)


async def test_waiting_times_are_measured() -> None:
    """Null until two looks were taken; then what waits, at the rate at which jobs really end."""
    clock = ManualClock()
    async with stage(clock=clock) as s:
        first = (await s.http.post("/v1/jobs", json={"task": "free"})).json()
        assert (first["queue_position"], first["eta"]) == (0, None)
        rates = s.gateway._rates
        await rates.sample()
        for _ in range(9):
            await s.submit()
        for _ in range(5):
            await s.hand.succeed(await s.hand.take(), 1)
        clock.advance(s=2)
        await rates.sample()
        last = await s.http.post("/v1/jobs", json={"task": "free"})
        assert (last.json()["queue_position"], last.json()["eta"]) == (5, 2.4), "6 jobs at 2.5 a second"
        assert last.headers["retry-after"] == "2"
        assert (await s.job(last.json()["id"]))["eta"] == 2.4
        queue = (await s.http.get("/v1/queues/hall")).json()
        assert (queue["rate"], queue["wait"]) == (2.5, 2.4)
        await s.engine.set_queue([QueueChange("hall", max_depth=6)])
        full = await s.http.post("/v1/jobs", json={"task": "free"})
        assert (full.headers["retry-after"], full.json()["detail"][-11:]) == ("2", "(about 2 s)")


async def test_a_queue_that_stands_still_is_said_to_take_long() -> None:
    """60 s is the most that is ever told, and 1 s the least."""
    clock = ManualClock()
    async with stage(clock=clock) as s:
        await s.engine.set_queue([QueueChange("hall", max_depth=1)])
        await s.submit()
        await s.gateway._rates.sample()
        clock.advance(s=5)
        await s.gateway._rates.sample()
        full = await s.http.post("/v1/jobs", json={"task": "free"})
        assert full.headers["retry-after"] == "60"


async def test_health_is_the_engines_and_readiness_the_drains() -> None:
    """Alive whatever happens; healthy while the engine answers; ready until the drain. Balancers ask by address."""
    down = False

    def wrap(engine: Any) -> Any:
        return FaultyEngine(engine, lambda method, nth: "before" if down else None)

    async with stage(wrap=wrap) as s:

        async def statuses() -> list[int]:
            headers = {"host": "10.0.0.7:8000"}
            return [(await s.http.get(path, headers=headers)).status_code for path in ("/livez", "/healthz", "/readyz")]

        assert await statuses() == [200, 200, 200]
        down = True
        assert await statuses() == [200, 503, 503]
        refused = await s.http.get("/v1/jobs")
        assert (refused.status_code, refused.json()["code"]) == (503, "engine_unavailable")
        assert (refused.headers["retry-after"], refused.json()["retryable"]) == ("1", True)
        down = False
        await s.gateway.drain()
        assert await statuses() == [200, 200, 503]
        assert (await s.http.get("/readyz")).json()["status"] == "draining"


async def test_an_unknown_outcome_is_said_to_be_one() -> None:
    """503 outcome_unknown: the same call under the same key is safe, and gives the job that was made."""
    answers = iter(["after"])

    def wrap(engine: Any) -> Any:
        return FaultyEngine(engine, lambda method, nth: next(answers, None) if method == "submit" else None)  # type: ignore[arg-type]

    async with stage(wrap=wrap) as s:
        key = {"Idempotency-Key": "k"}
        lost = await s.http.post("/v1/jobs", json={"task": "free"}, headers=key)
        assert (lost.status_code, lost.json()["code"], lost.json()["retryable"]) == (503, "outcome_unknown", True)
        again = await s.http.post("/v1/jobs", json={"task": "free"}, headers=key)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")


async def test_what_nobody_foresaw_is_500_and_tells_nothing() -> None:
    """A problem with the request's id; the reason is in the log alone."""

    def wrap(engine: Any) -> Any:
        def break_(method: str, nth: int) -> None:
            if method == "find":
                raise RuntimeError("secret detail")

        return FaultyEngine(engine, break_)

    async with stage(wrap=wrap) as s:
        answer = await s.http.get("/v1/jobs")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert answer.headers["content-type"] == "application/problem+json"
        assert "secret" not in answer.text
